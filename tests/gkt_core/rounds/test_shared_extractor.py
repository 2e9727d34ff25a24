"""Extractors that devices share: their mean, and every way in which a file can be none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gkt_core.bundle.manifest import TensorSlot
from gkt_core.errors import ShardError
from gkt_core.rounds.shared_extractor import (
    MOST_WEIGHT,
    ExtractorSpec,
    mean_extractor,
    read_extractor,
    write_extractor,
)
from gkt_core.wire.shard_file import serialise

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
