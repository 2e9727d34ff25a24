"""Served runs under the watch: cameras are trained to the end; where all are poisoned the run says so."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.trust.features import GuardedEngine
from gkt_core.data.datasets import load_dataset
from gkt_core.errors import RunFailedError
from profiling.server.poisoning.honest import camera, private_data
from server_app.rounds.state import Pardoned, Phase
from server_app.status import run_status
from tests.gkt_core.algorithms.test_served_run import PyTorchDevice, Served
from tests.server_app.server_fixtures import IMAGE_SIZE, NUM_CLASSES, run_config

pytest_plugins = ["tests.server_app.server_fixtures"]

CAMERAS = ("camera-a", "camera-b", "night")


NUMBERS = np.random.default_rng(0)


class Poisoner(PyTorchDevice):
    """A device that sends numbers for features; its logits are honest."""

    def predict(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features, logits = super().predict(images)
        noise = NUMBERS.normal(0.3, 1.0, features.shape)
        return np.maximum(noise, 0).astype(np.float32), logits


def served(
    bundle: Path, folder: Path, patch: pytest.MonkeyPatch, engine_class: type[PyTorchDevice] = PyTorchDevice
) -> Served:
    digits = load_dataset("digits", image_size=IMAGE_SIZE, seed=0, data_root=Path("unused"), limit=None)
    names = tuple(str(label) for label in range(NUM_CLASSES))
    data = {
        client_id: private_data(
            *camera(np.random.default_rng([8, seed]), digits, 80, night=client_id == "night"), names
        )
        for seed, client_id in enumerate(CAMERAS)
    }
    config = run_config(num_clients=len(data), rounds=3, batch_size=16, crop_padding=2)
    return Served(bundle, folder, config, patch, data=data, engine_class=engine_class)


@pytest.mark.system
def test_fixed_cameras_are_trained_to_the_end(
    server_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = served(server_bundle, tmp_path, monkeypatch)
    with contextlib.closing(run.run.store):
        run.to_the_end()
        state = run.run.store.state()
        assert (state.quarantined, dict(state.answered)) == ((), dict.fromkeys(CAMERAS, 3))
        assert [each.num_examples for each in run_status(run.run.store).finished_rounds] == [3 * 70] * 3


@pytest.mark.system
def test_a_run_in_which_all_are_quarantined_says_so_and_stops(
    server_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A hostile device has taken out what would keep it from sending them.
    monkeypatch.setattr(GuardedEngine, "_check", lambda *_: None)
    monkeypatch.setattr(GuardedEngine, "_check_logits", lambda *_: None)
    monkeypatch.setattr("edge_runtime.trust.features.readable_share", lambda *_: 0.0)
    run = served(server_bundle, tmp_path, monkeypatch, Poisoner)
    with contextlib.closing(run.run.store):
        state, errors = run.until_it_stops()
        assert state.phase is Phase.FAILED and list(dict(state.quarantined)) == list(CAMERAS)
        status = run_status(run.run.store)
        assert "nobody is left" in status.error and status.finished_rounds == []
        for client_id in CAMERAS:
            assert isinstance(errors[client_id], RunFailedError)
            assert f"{client_id} is quarantined: neighbouring features" in str(errors[client_id])
        # A person vouches for one: the run goes on with it, and the others hear why they have no part.
        run.run.store.apply(Pardoned("night", trusted=True))
        run.folder = tmp_path / "started again"
        state, errors = run.until_it_stops()
        assert (state.phase, dict(state.answered)) == (Phase.FINISHED, {"night": 3})
        assert set(errors) == {"camera-a", "camera-b"}
        assert "while camera-a was quarantined: neighbouring" in str(errors["camera-a"])
