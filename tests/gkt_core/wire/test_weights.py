"""Weights on the wire: what arrives, and what it takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gkt_core.wire.weights import num_wire_bytes, send_weights


def weights(seed: int, scale: float = 1.0) -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    shapes = {"conv": (8, 4, 3, 3), "dense": (10, 8), "bias": (10,), "one": (1,)}
    return {
        name: (scale * generator.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()
    }


@given(st.integers(0, 2**32))
def test_fp32_is_exact(seed: int) -> None:
    sent = weights(seed)
    arrived, num_bytes = send_weights(sent, "fp32", compressed=False, received=weights(seed + 1))
    assert all(np.array_equal(arrived[name], value) for name, value in sent.items())
    assert num_bytes == 4 * sum(value.size for value in sent.values())


@given(st.integers(0, 2**32), st.sampled_from([1e-4, 1.0, 100.0]))
def test_uint8_is_off_by_half_a_step_of_the_difference(seed: int, scale: float) -> None:
    """However large the weights are: a channel's step follows from how far its weights moved."""
    received = weights(seed, 3.0)
    sent = {name: received[name] + value for name, value in weights(seed + 1, scale).items()}
    arrived, num_bytes = send_weights(sent, "uint8", compressed=False, received=received)
    for name, value in sent.items():
        moved = (
            (value - received[name]).reshape(len(value), -1)
            if value.ndim > 1
            else (value - received[name])[None]
        )
        steps = (moved.max(axis=1) - moved.min(axis=1)) / 255
        off = np.abs(arrived[name] - value).reshape(len(steps), -1).max(axis=1)
        assert (off <= 0.51 * steps + 1e-6 * max(1.0, scale)).all(), name
        assert arrived[name].shape == value.shape and arrived[name].dtype == np.float32
    assert num_bytes < 2 * sum(value.size for value in sent.values())


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_counted_is_what_travels(compressed: bool) -> None:
    zeros = {"weights": np.zeros(100_000, np.float32)}
    num_bytes = num_wire_bytes(zeros, compressed=compressed)
    assert num_bytes < 100 if compressed else num_bytes == 400_000
