"""Codecs: how exact they are, on any finite features, and what they refuse."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gkt_core.config.run_config import CODECS
from gkt_core.errors import CodecError
from gkt_core.wire.codec import EncodedFeatures, check_scales, decode, encode, encoded_layout

EPS = 2.0**-24
LARGEST = float(np.finfo(np.float32).max)


@st.composite
def feature_batches(draw: st.DrawFn, limit: float = 1e36) -> NDArray[np.float32]:
    """Any shape with an even number of pixels, each channel somewhere else and of another width."""
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 3)),
        2 * draw(st.integers(1, 3)),
    )
    unit = draw(arrays(np.float32, shape, elements=st.floats(-1, 1, width=32)))
    magnitude = st.sampled_from([0.0, 1e-44, 1e-30, 1e-3, 1.0, 6.0, 1e4, 1e20, limit])
    widths = draw(arrays(np.float64, shape[1], elements=magnitude))
    centres = draw(arrays(np.float64, shape[1], elements=magnitude))
    signs = draw(arrays(np.int8, shape[1], elements=st.sampled_from([-1, 1])))
    moved = unit * widths[:, None, None] + (centres * signs)[:, None, None]
    return np.asarray(np.clip(moved, -limit, limit), np.float32)


def _shape(features: NDArray[Any]) -> tuple[int, int, int]:
    return features.shape[1:]


@given(feature_batches(limit=3e38))
def test_fp32_is_exact(features: NDArray[Any]) -> None:
    encoded = encode(features, "fp32")
    decoded = decode(encoded, _shape(features))
    assert decoded.dtype == np.float32
    assert decoded.tobytes() == features.tobytes()


@given(feature_batches(limit=65504.0))
def test_fp16_keeps_eleven_bits(features: NDArray[Any]) -> None:
    features = np.clip(features, -65504, 65504)
    decoded = decode(encode(features, "fp16"), _shape(features))
    assert decoded.dtype == np.float32
    assert (np.abs(decoded - features) <= np.abs(features) * 2.0**-11 + 2.0**-25).all()


@pytest.mark.parametrize(("codec", "levels"), [("uint8", 255), ("uint4", 15)])
@given(features=feature_batches())
@example(features=np.zeros((1, 2, 2, 2), np.float32))
@example(features=np.full((2, 1, 1, 2), -7.25, np.float32))
@example(features=np.array([-1e36, 1e36], np.float32).reshape(1, 1, 1, 2))
@example(features=np.array([0, 1e-45], np.float32).reshape(1, 1, 1, 2))
@example(features=np.array([3e38, 3.1e38], np.float32).reshape(1, 1, 1, 2))
def test_levels_are_at_most_half_a_step_away(codec: str, levels: int, features: NDArray[Any]) -> None:
    encoded = encode(features, codec)
    decoded = decode(encoded, _shape(features))
    assert decoded.dtype == np.float32
    assert decoded.shape == features.shape
    exact = features.astype(np.float64)
    low, high = exact.min(axis=(0, 2, 3)), exact.max(axis=(0, 2, 3))
    # The step may not hide a coarse grid: it is the channel's own span in that many levels.
    varies = high > low
    smallest = float(np.finfo(np.float32).tiny)
    np.testing.assert_allclose(
        encoded.scale[varies], np.maximum((high - low)[varies] / levels, smallest), rtol=1e-6
    )
    rounding = 4 * EPS * (np.abs(low) + np.abs(high)) + smallest * EPS
    # Quotients reach `levels`, so rounding them may move the border between two levels by that much.
    allowed = np.where(varies, encoded.scale * (0.5 + levels * 4 * EPS), 0) + rounding
    assert (np.abs(decoded - exact) <= allowed[:, None, None]).all()


@pytest.mark.parametrize("codec", ["uint8", "uint4"])
def test_a_constant_channel_is_exact_and_zeros_stay_zeros(codec: str) -> None:
    features = np.stack([np.zeros((2, 2)), np.full((2, 2), -3.5), np.full((2, 2), 1e30)])[None]
    features = features.astype(np.float32)
    assert np.array_equal(decode(encode(features, codec), (3, 2, 2)), features)


@pytest.mark.parametrize("codec", ["uint8", "uint4"])
def test_a_wide_channel_does_not_coarsen_its_neighbour(codec: str) -> None:
    features = np.zeros((1, 2, 1, 2), np.float32)
    features[0, 0] = [0, 1e6]
    features[0, 1] = [0, 1e-3]
    decoded = decode(encode(features, codec), (2, 1, 2))
    np.testing.assert_allclose(decoded, features, rtol=1e-6)


def test_uint4_puts_the_even_neighbour_in_the_low_half() -> None:
    features = np.array([0, 15, 3, 1], np.float32).reshape(1, 1, 2, 2)
    encoded = encode(features, "uint4")
    assert encoded.values.tolist() == [[[0xF0, 0x13]]]
    assert encoded.scale.tolist() == [1.0]
    assert np.array_equal(decode(encoded, (1, 2, 2)), features)


def test_uint8_levels_are_known() -> None:
    features = np.array([-1.0, 0.0, 254.0, 126.4], np.float32).reshape(1, 1, 2, 2)
    encoded = encode(features, "uint8")
    assert encoded.values.ravel().tolist() == [0, 1, 255, 127]
    assert encoded.offset.tolist() == [-1.0]


@pytest.mark.parametrize("codec", CODECS)
def test_the_layout_says_what_encoding_gives(codec: str) -> None:
    features = np.random.default_rng(0).normal(size=(3, 4, 6, 2)).astype(np.float32)
    encoded = encode(features, codec)
    dtype, sample_shape = encoded_layout(codec, (4, 6, 2))
    assert encoded.values.dtype == dtype
    assert encoded.values.shape == (3, *sample_shape)
    assert encoded.scale.dtype == encoded.offset.dtype == np.float32


@pytest.mark.parametrize("codec", CODECS)
def test_any_rows_decode_alone(codec: str) -> None:
    features = np.random.default_rng(0).normal(size=(5, 2, 4, 4)).astype(np.float32)
    encoded = encode(features, codec)
    rows = np.array([4, 0, 4])
    some = dataclasses.replace(encoded, values=encoded.values[rows])
    assert np.array_equal(decode(some, (2, 4, 4)), decode(encoded, (2, 4, 4))[rows])


@pytest.mark.parametrize("codec", CODECS)
def test_encoding_leaves_its_input_alone_whatever_its_memory_layout(codec: str) -> None:
    features = np.random.default_rng(1).normal(size=(4, 4, 2, 3)).astype(np.float32).transpose(2, 3, 0, 1)
    before = features.copy()
    decoded = decode(encode(features, codec), (3, 4, 4))
    assert np.array_equal(features, before)
    assert np.array_equal(decoded, decode(encode(before, codec), (3, 4, 4)))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(codec: str, value: float) -> None:
    features = np.ones((2, 2, 2, 2), np.float32)
    features[1, 1, 0, 1] = value
    with pytest.raises(CodecError, match="NaN or infinity"):
        encode(features, codec)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "features",
    [
        np.zeros((2, 2, 2), np.float32),
        np.zeros((0, 2, 2, 2), np.float32),
        np.zeros((1, 2, 2, 2), np.float64),
        np.zeros((1, 2, 2, 2), np.uint8),
    ],
    ids=["three dimensions", "no samples", "float64", "uint8"],
)
def test_features_of_another_shape_or_dtype_are_refused(codec: str, features: NDArray[Any]) -> None:
    with pytest.raises(CodecError, match="expected float32"):
        encode(features, codec)


@pytest.mark.parametrize("value", [65505.0, -1e6, 3e38])
def test_fp16_overflow_is_named(value: float) -> None:
    with pytest.raises(CodecError, match="beyond fp16: choose fp32 or uint8"):
        encode(np.full((1, 1, 2, 2), value, np.float32), "fp16")


@pytest.mark.parametrize("codec", ["uint8", "uint4"])
def test_a_span_beyond_float32_is_named_not_decoded_to_infinity(codec: str) -> None:
    features = np.array([-3e38, 3e38], np.float32).reshape(1, 1, 1, 2)
    with pytest.raises(CodecError, match="span more than float32"):
        encode(features, codec)


def test_odd_pixel_counts_cannot_be_packed() -> None:
    with pytest.raises(CodecError, match="cannot pack 3x5: choose uint8"):
        encode(np.zeros((1, 1, 3, 5), np.float32), "uint4")
    assert decode(encode(np.zeros((1, 1, 3, 5), np.float32), "uint8"), (1, 3, 5)).shape == (1, 1, 3, 5)


def test_an_unknown_codec_is_named_with_the_known_ones() -> None:
    with pytest.raises(CodecError, match="unknown codec 'zip', expected one of fp32, fp16, uint8, uint4"):
        encode(np.zeros((1, 1, 2, 2), np.float32), "zip")
    unknown = EncodedFeatures("zip", np.zeros((1, 1, 2, 2)), np.ones(1, np.float32), np.zeros(1, np.float32))
    with pytest.raises(CodecError, match="unknown codec"):
        decode(unknown, (1, 2, 2))


def _encoded(codec: str, **changes: Any) -> EncodedFeatures:
    features = np.random.default_rng(0).uniform(size=(2, 3, 4, 4)).astype(np.float32)
    return dataclasses.replace(encode(features, codec), **changes)


@pytest.mark.parametrize("codec", CODECS)
def test_encoded_values_of_another_dtype_or_shape_are_refused(codec: str) -> None:
    good = _encoded(codec)
    assert decode(good, (3, 4, 4)).shape == (2, 3, 4, 4)
    wrong = [
        good.values.astype(np.int64),
        good.values[:, :2],
        good.values[0],
        good.values.reshape(2, -1),
        np.asarray(good.values).ravel()[0],
    ]
    for values in wrong:
        with pytest.raises(CodecError, match="this run expects"):
            decode(dataclasses.replace(good, values=values), (3, 4, 4))
    with pytest.raises(CodecError, match="this run expects"):
        decode(good, (3, 4, 6))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", ["scale", "offset"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scales_that_are_not_finite_are_refused(codec: str, name: str, value: float) -> None:
    scales = np.ones(3, np.float32)
    scales[1] = value
    with pytest.raises(CodecError, match="NaN or infinity"):
        decode(_encoded(codec, **{name: scales}), (3, 4, 4))


def test_infinities_that_cancel_are_refused_too() -> None:
    with pytest.raises(CodecError):
        decode(
            _encoded("uint8", scale=np.full(3, np.inf, np.float32), offset=np.full(3, -np.inf, np.float32)),
            (3, 4, 4),
        )


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0])
def test_a_scale_that_is_not_positive_is_refused(value: float) -> None:
    with pytest.raises(CodecError, match="not positive"):
        decode(_encoded("uint8", scale=np.array([1, value, 1], np.float32)), (3, 4, 4))


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": np.ones(2, np.float32)},
        {"scale": np.ones((3, 1), np.float32)},
        {"scale": np.ones(3, np.float64)},
        {"offset": np.zeros(4, np.float32)},
        {"offset": np.zeros(3, np.int64)},
    ],
    ids=["few", "two dimensions", "float64", "many", "int64"],
)
def test_scales_of_another_shape_or_dtype_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match=r"expected float32 \[3\]"):
        decode(_encoded("uint4", **changes), (3, 4, 4))


@pytest.mark.parametrize(
    ("scale", "offset"),
    [(2e36, 0.0), (1e36, 2e38), (2.6e36, -3e38), (1e-30, LARGEST), (1.0, -LARGEST)],
    ids=["product", "sum", "product that the sum hides", "offset", "negative offset"],
)
def test_scales_that_decode_beyond_float32_are_refused(scale: float, offset: float) -> None:
    with pytest.raises(CodecError, match="span more than float32"):
        decode(_topmost(scale, offset), (3, 4, 4))


@pytest.mark.parametrize(("scale", "offset"), [(1.3e36, 0.0), (1.3e36, -3.3e38), (1e-38, 3.4e38)])
def test_the_largest_scales_that_are_accepted_decode_to_finite_values(scale: float, offset: float) -> None:
    assert np.isfinite(decode(_topmost(scale, offset), (3, 4, 4))).all()


def _topmost(scale: float, offset: float) -> EncodedFeatures:
    top = _encoded("uint8", scale=np.full(3, scale, np.float32), offset=np.full(3, offset, np.float32))
    return dataclasses.replace(top, values=np.full((2, 3, 4, 4), 255, np.uint8))


def test_check_scales_accepts_what_encode_gives() -> None:
    for codec in CODECS:
        check_scales(_encoded(codec), 3)
