"""Drift is measured on a device's own first samples, as they are."""

from __future__ import annotations

import numpy as np
import pytest

from gkt_core.algorithms import TorchEngine
from gkt_core.config.run_config import RunConfig
from gkt_core.nn import build_edge_network
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_round import client_update
from gkt_core.rounds.drift import DRIFT_SAMPLES, fixed_features, relative_change, uploads_now
from tests.server_app.server_fixtures import private_data


def test_relative_change_is_relative() -> None:
    before = np.array([[3.0, 4.0]], np.float32)
    assert relative_change(before, before) == 0
    assert relative_change(before, 2 * before) == 1
    assert relative_change(before, np.array([[3.0, 0.0]], np.float32)) == pytest.approx(0.8)
    assert relative_change(0 * before, before) == float("inf")
    assert relative_change(0 * before, 0 * before) == 0


def test_training_drifts_and_a_device_uploads_when_it_has_gone_far_enough() -> None:
    data = private_data(0, num_train=DRIFT_SAMPLES + 20)
    config = RunConfig(batch_size=16, edge_lr=0.01, crop_padding=1)
    engine = TorchEngine(build_edge_network("resnet8", 3, seed=1), config)
    part = ClientPart("a", data, config, 3)
    then = fixed_features(engine, part)
    assert then.shape == (DRIFT_SAMPLES, 16, 8, 8)
    client_update(engine, part, None, 1)
    drift = relative_change(then, fixed_features(engine, part))
    assert drift > 0.01
    for uploads, expected in ((0.5 * drift, True), (drift, True), (1.5 * drift, False)):
        config = RunConfig(uploads=f"drift={uploads!r}")
        assert uploads_now(engine, ClientPart("a", data, config, 3), 2, 1, then) is expected, uploads
    rounds = ClientPart("a", data, RunConfig(uploads="rounds=1"), 3)
    assert not uploads_now(engine, rounds, 2, 1, then) and uploads_now(engine, rounds, 2, 0, None)
