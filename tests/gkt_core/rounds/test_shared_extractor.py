"""Extractors that devices share: their mean, and every way in which a file can be none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from gkt_core.algorithms.simulation.torch_engine import TorchEngine
from gkt_core.bundle.manifest import TensorSlot
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ShardError
from gkt_core.nn import build_edge_network
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.engine import DeviceEngine
from gkt_core.rounds.shared_extractor import (
    MOST_WEIGHT,
    ExtractorSpec,
    far_extractors,
    mean_extractor,
    read_extractor,
    take_mean,
    write_extractor,
)
from gkt_core.wire.shard_file import serialise
from tests.server_app.server_fixtures import NUM_CLASSES, private_data

NAMES = {"extractor.conv.weight": (4, 3, 3, 3), "extractor.bn.running_var": (4,), "extractor.bn.bias": (4,)}
SPEC = ExtractorSpec.of_slots({name: TensorSlot(0, list(shape)) for name, shape in NAMES.items()})


def weights(seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    own = {name: rng.random(shape, dtype=np.float32) for name, shape in NAMES.items()}
    return own | {"head.fc.weight": rng.random((10, 4), dtype=np.float32)}


def written(seed: int = 0) -> bytes:
    return write_extractor(SPEC, weights(seed), "client-a", 3)


def test_an_extractor_is_read_as_it_was_written_and_the_head_stays() -> None:
    read = read_extractor(written(), SPEC, "client-a", 3)
    assert set(read) == set(NAMES)
    assert all(np.array_equal(values, weights(0)[name]) for name, values in read.items())
    assert ExtractorSpec.of_arrays(weights(0)) == SPEC
    assert len(written()) <= SPEC.max_bytes
    assert b"head" not in written()


def test_the_mean_is_weighted_by_samples() -> None:
    parts = [(10, weights(1)), (30, weights(2)), (60, weights(3))]
    mean = mean_extractor(SPEC, parts)
    for name in NAMES:
        expected = sum(num / 100 * own[name].astype(np.float64) for num, own in parts)
        np.testing.assert_allclose(mean[name], expected, rtol=1e-6)
        assert mean[name].dtype == np.float32
    alone = mean_extractor(SPEC, parts[:1])
    assert all(np.array_equal(alone[name], weights(1)[name]) for name in NAMES)


def changed(begun: dict[str, NDArray[np.float32]], by: float, seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {
        name: values + by * rng.standard_normal(values.shape).astype(np.float32)
        for name, values in begun.items()
    }


def distance(one: Mapping[str, NDArray[np.float32]], other: Mapping[str, NDArray[np.float32]]) -> float:
    return float(np.linalg.norm(SPEC.flat(one) - SPEC.flat(other)))


@pytest.mark.parametrize("knows_begun", [True, False], ids=["from a mean", "from nowhere known"])
@pytest.mark.parametrize("num", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("hostile", [9999.0, 300.0, -9999.0])
def test_one_device_does_not_carry_the_mean_away(num: int, hostile: float, knows_begun: bool) -> None:
    begun = weights(0)
    honest = {f"client-{seed}": changed(begun, 0.02, seed) for seed in range(1, num + 1)}
    bad = {name: np.full_like(values, hostile) for name, values in begun.items()}
    known = begun if knows_begun else None
    named = far_extractors(SPEC, {**honest, "mallory": bad}, known)
    assert list(named) == ["mallory"] and "norm of the change" in named["mallory"]
    assert far_extractors(SPEC, honest, known) == {}
    # Nor where nobody is left out: its change counts for no more than one that could be honest.
    parts = [(10, own) for own in honest.values()]
    mean = mean_extractor(SPEC, [*parts, (10, bad)], known)
    assert distance(mean, begun) < 2 * np.sqrt(SPEC.num_values)
    if knows_begun and num >= 4:
        assert distance(mean, begun) < 4 * distance(honest["client-1"], begun)


def test_honest_changes_are_averaged_as_they_are() -> None:
    begun = weights(0)
    parts = [(seed, changed(begun, 0.02 * seed, seed)) for seed in range(1, 6)]
    mean, plain = mean_extractor(SPEC, parts, begun), np.zeros(SPEC.num_values)
    for num, own in parts:
        plain += SPEC.flat(own).astype(np.float64) * (num / 15)
    np.testing.assert_array_equal(SPEC.flat(mean), plain.astype(np.float32))


def test_who_hardly_trains_makes_nobody_else_far_off() -> None:
    begun = weights(0)
    own = {f"client-{seed}": changed(begun, 1e-6, seed) for seed in range(5)}
    own["client-9"] = changed(begun, 0.1, 9)
    assert far_extractors(SPEC, own, begun) == {}


def flat(**changes: Any) -> NDArray[np.float32]:
    values = SPEC.flat(weights(0))
    for place, value in changes.items():
        values[int(place[1:])] = value
    return values


def file(values: NDArray[Any], **changes: Any) -> bytes:
    metadata = {"kind": "extractor", "client_id": "client-a", "round_num": 3}
    return serialise({"extractor": values}, metadata | changes)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (file(flat(_3=np.nan)), "NaN or infinity"),
        (file(flat(_3=np.inf)), "NaN or infinity"),
        (file(flat(_3=2 * MOST_WEIGHT)), "reach 2e\\+04"),
        # Names are sorted: the bias has four values, then comes the variance.
        (file(flat(_5=-1e-3)), "running_var holds -0.001: a variance is never negative"),
        (file(flat()[:-1]), r"extractor is float32 \[115\], this run expects float32 \[116\]"),
        (file(flat().astype(np.float16)), "float16"),
        (file(flat(), client_id="client-b"), "client_id 'client-b', expected 'client-a'"),
        (file(flat(), round_num=2), "round_num '2'"),
        (file(flat(), kind="features"), "kind 'features'"),
        (
            serialise({"other": flat()}, {"kind": "extractor", "client_id": "client-a", "round_num": 3}),
            "other",
        ),
        (b"", "cut short"),
        (written()[:-1], "outside"),
    ],
    ids=range(12),
)
def test_a_file_that_is_no_extractor_of_this_run(data: bytes, match: str) -> None:
    with pytest.raises(ShardError, match=match):
        read_extractor(data, SPEC, "client-a", 3)


def test_a_device_whose_training_diverged_sends_none() -> None:
    with pytest.raises(ShardError, match="NaN or infinity"):
        write_extractor(SPEC, weights(0) | {"extractor.bn.bias": np.full(4, np.nan, np.float32)}, "a", 1)


class Named(TorchEngine):
    """The engine of a simulation with the names of a device's."""

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        return self.extractor()


def test_a_mean_that_nothing_can_be_trained_behind_is_not_taken() -> None:
    config = RunConfig()
    engine = Named(build_edge_network("resnet8", NUM_CLASSES, seed=0), config)
    part = ClientPart("client-a", private_data(1), config, NUM_CLASSES)
    own = engine.extractor()
    spec = ExtractorSpec.of_arrays(own)

    def taken(mean: Mapping[str, NDArray[np.float32]]) -> str:
        return take_mean(cast(DeviceEngine, engine), part, spec, write_extractor(spec, mean, "", 4), 4)

    hostile = {name: np.full_like(values, 9999) for name, values in own.items()}
    assert "with the mean of round 4" in taken(hostile)
    assert all(np.array_equal(engine.extractor()[name], values) for name, values in own.items())
    # It is mended: the next one is taken.
    mended = {name: values + np.float32(0.01) for name, values in own.items()}
    assert taken(mended) == ""
    assert all(np.array_equal(engine.extractor()[name], values) for name, values in mended.items())
