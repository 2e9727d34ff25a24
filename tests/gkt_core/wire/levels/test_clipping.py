"""Where few levels lie: nothing is lost by clipping, and much is won where values have a tail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from gkt_core.wire.codec import EncodedFeatures, decode, encode
from gkt_core.wire.levels.clipping import clipped_range
from tests.gkt_core.wire.test_codec import feature_batches

CLIPPED = {"uint3": 7, "uint2": 3, "uint1": 1}


def _unclipped(features: NDArray[np.float32], levels: int) -> NDArray[np.float64]:
    """What levels between the least and the greatest value of each channel would decode to."""
    exact = features.astype(np.float64)
    low, high = exact.min(axis=(0, 2, 3)), exact.max(axis=(0, 2, 3))
    step = np.where(high > low, (high - low) / levels, 1.0)[:, None, None]
    return np.asarray(np.rint((exact - low[:, None, None]) / step) * step + low[:, None, None])


def _error(decoded: NDArray[np.floating], features: NDArray[np.float32]) -> float:
    return float(np.linalg.norm((decoded.astype(np.float64) - features).ravel()))


@pytest.mark.parametrize("codec", CLIPPED)
@given(features=feature_batches(limit=1e30))
def test_clipping_rounds_no_more_than_the_whole_range(codec: str, features: NDArray[np.float32]) -> None:
    encoded = encode(features, codec)
    decoded = decode(encoded, features.shape[1:])
    assert np.isfinite(decoded).all()
    assert decoded.min() >= features.min() - np.abs(features).max() * 1e-5
    rounding = 1e-5 * float(np.linalg.norm(features.astype(np.float64).ravel())) + 1e-30
    assert _error(decoded, features) <= _error(_unclipped(features, CLIPPED[codec]), features) + rounding


@pytest.mark.parametrize(("codec", "share"), [("uint3", 0.7), ("uint2", 0.6), ("uint1", 0.6)])
def test_values_with_a_tail_are_rounded_much_less(codec: str, share: float) -> None:
    rng = np.random.default_rng(0)
    features = np.maximum(rng.laplace(size=(64, 4, 16, 16)), 0).astype(np.float32)
    decoded = decode(encode(features, codec), (4, 16, 16))
    assert _error(decoded, features) < share * _error(_unclipped(features, CLIPPED[codec]), features)


@pytest.mark.parametrize("codec", CLIPPED)
def test_a_constant_channel_is_exact(codec: str) -> None:
    features = np.stack([np.zeros((4, 4)), np.full((4, 4), -3.5), np.full((4, 4), 1e30)])[None]
    features = features.astype(np.float32)
    assert np.array_equal(decode(encode(features, codec), (3, 4, 4)), features)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_end_with_the_tail_is_clipped(sign: int) -> None:
    values = np.random.default_rng(1).exponential(size=(16, 1, 16, 16)).astype(np.float32) * np.float32(sign)
    low, high = values.min(axis=(0, 2, 3)).astype(float), values.max(axis=(0, 2, 3)).astype(float)
    begin, end = clipped_range(values, low, high, 3)
    assert 0.1 < float((end - begin)[0] / (high - low)[0]) < 0.8
    tail_kept = abs(float((begin if sign < 0 else end)[0]))
    assert tail_kept < 0.8 * float(np.abs(values).max())


def test_levels_of_one_bit_are_those_of_two_kinds_of_values() -> None:
    rng = np.random.default_rng(2)
    kinds = rng.integers(0, 2, (32, 1, 8, 8))
    features = (kinds * 4 + rng.normal(0, 0.1, kinds.shape)).astype(np.float32)
    encoded: EncodedFeatures = encode(features, "uint1")
    assert float(encoded.offset[0]) == pytest.approx(0, abs=0.15)
    assert float(encoded.offset[0] + encoded.scale[0]) == pytest.approx(4, abs=0.15)
    assert np.array_equal(decode(encoded, (1, 8, 8)) > 2, kinds == 1)
