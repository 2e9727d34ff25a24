"""Feature tensors <-> arrays that travel: fp32, fp16, or whole numbers of 8 to 1 bits, one scale per channel.

Features leave the tap after a ReLU (facts of the network: non-negative, about half zeros), yet the codecs
are affine and take any finite tensor: a network of the user's own may tap elsewhere. Decoding never
trusts a shape or a value: everything is checked against what the run expects before memory is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import CODEC_BITS, CODECS, PACKED_CODECS
from gkt_core.errors import CodecError
from gkt_core.wire.levels.clipping import clipped_range
from gkt_core.wire.levels.packing import group_of, pack, unpack

_LEVELS = {codec: (1 << CODEC_BITS[codec]) - 1 for codec in ("uint8", *PACKED_CODECS)}
_FLOATS: dict[str, np.dtype[np.generic]] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}
# Numbers that are encoded at a time: they stay in a cache.
_BLOCK_VALUES = 1 << 16
# Codecs whose few levels lie where they round least; the others reach from the least value to the greatest.
_CLIPPED = ("uint3", "uint2", "uint1")


@dataclass(frozen=True, slots=True)
class EncodedFeatures:
    """Features as they travel.

    Attributes:
        codec: Name of the codec.
        values: ``[N, C, H, W]`` in the codec's dtype; of 4 bits and fewer several neighbours a byte,
            ``[N, C, H * W * bits / 8]``, the first one in its lowest bits (of 3 bits eight in three bytes),
            and zeros behind the last one.
        scale: ``[C] float32``: the step between two levels of each channel; ones for floats.
        offset: ``[C] float32``: the value of level 0 of each channel; zeros for floats.
    """

    codec: str
    values: NDArray[np.generic]
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]


def encoded_layout(
    codec: str, feature_shape: tuple[int, int, int]
) -> tuple[np.dtype[np.generic], tuple[int, ...]]:
    """Give the dtype and the shape of one sample that ``encode`` makes of ``(C, H, W)``.

    Raises:
        CodecError: The codec is unknown, or cannot pack this shape.
    """
    if codec not in CODECS:
        raise CodecError(f"unknown codec {codec!r}, expected one of {', '.join(CODECS)}")
    channels, height, width = feature_shape
    if codec not in PACKED_CODECS:
        return _FLOATS.get(codec, np.dtype(np.uint8)), feature_shape
    if codec == "uint4" and height * width % 2:
        raise CodecError(f"uint4 packs pairs of pixels and cannot pack {height}x{width}: choose uint8")
    in_group, num_bytes = group_of(CODEC_BITS[codec])
    return np.dtype(np.uint8), (channels, -(-height * width // in_group) * num_bytes)


def encode(features: NDArray[np.float32], codec: str) -> EncodedFeatures:
    """Encode a batch of features.

    Args:
        features: ``[N, C, H, W] float32``, finite, N at least 1.
        codec: One of :data:`gkt_core.config.run_config.CODECS`.

    Raises:
        CodecError: The codec is unknown, or the features are ill-shaped, not finite or beyond its range.
    """
    if features.dtype != np.float32 or features.ndim != 4 or len(features) == 0:
        kind = f"{features.dtype} {list(features.shape)}"
        raise CodecError(f"features are {kind}, expected float32 [N, C, H, W] with N at least 1")
    channels = features.shape[1]
    _, sample_shape = encoded_layout(codec, (channels, features.shape[2], features.shape[3]))
    if not (np.isfinite(features.min()) and np.isfinite(features.max())):
        raise CodecError("features hold NaN or infinity: the local training diverged, lower edge_lr")
    scale, offset = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    if codec == "fp32":
        return EncodedFeatures(codec, np.ascontiguousarray(features, dtype=np.float32), scale, offset)
    if codec == "fp16":
        largest = float(np.abs(features).max(initial=0.0))
        if largest > float(np.finfo(np.float16).max):
            raise CodecError(f"features reach {largest:.3g}, beyond fp16: choose fp32 or uint8")
        return EncodedFeatures(codec, features.astype(np.float16), scale, offset)
    return _levels(features, codec, sample_shape)


def _levels(features: NDArray[np.float32], codec: str, sample_shape: tuple[int, ...]) -> EncodedFeatures:
    """Cut each channel into levels."""
    num, channels = features.shape[:2]
    levels = _LEVELS[codec]
    by_channel = features.reshape(num, channels, -1)
    # In float64, so that max - min of large values neither overflows nor rounds to zero levels.
    low = by_channel.min(axis=2).min(axis=0).astype(np.float64)
    high = by_channel.max(axis=2).max(axis=0).astype(np.float64)
    if codec in _CLIPPED:
        low, high = clipped_range(features, low, high, levels)
    step = (high - low) / levels
    scale = np.where(step > 0, step, 1.0).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    offset = low.astype(np.float32)
    check_scales(EncodedFeatures(codec, features, scale, offset), channels)
    values = np.empty((num, *sample_shape), np.uint8)
    size = max(1, _BLOCK_VALUES // max(1, by_channel[0].size))
    for begin in range(0, num, size):
        block = by_channel[begin : begin + size] - offset[:, None]
        block /= scale[:, None]
        np.rint(block, out=block)
        np.clip(block, 0, levels, out=block)
        whole = block.astype(np.uint8)
        packed = _packed(whole, CODEC_BITS[codec]) if codec in PACKED_CODECS else whole
        values[begin : begin + size] = packed.reshape(-1, *sample_shape)
    return EncodedFeatures(codec, values, scale, offset)


def _packed(levels: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack ``[n, C, H * W]``; what is left of a channel's last bytes stays 0."""
    rest = -levels.shape[2] % group_of(bits)[0]
    return pack(np.pad(levels, ((0, 0), (0, 0), (0, rest))) if rest else levels, bits)


def decode(encoded: EncodedFeatures, feature_shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Decode a batch, or any selection of its rows, to ``[N, C, H, W] float32``.

    Raises:
        CodecError: dtype, shape, scale or offset are not what the codec gives for ``feature_shape``.
    """
    dtype, sample_shape = encoded_layout(encoded.codec, feature_shape)
    values = encoded.values
    if values.dtype != dtype or values.shape[1:] != sample_shape:
        raise CodecError(
            f"{encoded.codec} features are {values.dtype} {list(values.shape)}, "
            f"this run expects {dtype} [N, {', '.join(map(str, sample_shape))}]"
        )
    check_scales(encoded, feature_shape[0])
    if encoded.codec in ("fp32", "fp16"):
        return values.astype(np.float32)
    levels = values
    if encoded.codec in PACKED_CODECS:
        pixels = feature_shape[1] * feature_shape[2]
        whole = unpack(values.astype(np.uint8), CODEC_BITS[encoded.codec])
        levels = whole[..., :pixels].reshape(-1, *feature_shape)
    decoded = levels.astype(np.float32)
    decoded *= encoded.scale[:, None, None]
    decoded += encoded.offset[:, None, None]
    return decoded


def greatest_value(encoded: EncodedFeatures) -> float:
    """Give the greatest magnitude that levels can decode to; of codecs that have levels."""
    low = encoded.offset.astype(np.float64)
    high = low + encoded.scale.astype(np.float64) * _LEVELS[encoded.codec]
    return float(max(np.abs(low).max(initial=0.0), np.abs(high).max(initial=0.0)))


def check_scales(encoded: EncodedFeatures, channels: int) -> None:
    """Refuse scales and offsets that would decode to nonsense.

    Raises:
        CodecError: Wrong shape, dtype or sign, or levels that decode beyond float32.
    """
    for name, values in (("scale", encoded.scale), ("offset", encoded.offset)):
        if values.dtype != np.float32 or values.shape != (channels,):
            raise CodecError(
                f"features_{name} is {values.dtype} {list(values.shape)}, expected float32 [{channels}]"
            )
        if not np.isfinite(values).all():
            raise CodecError(f"features_{name} holds NaN or infinity")
    if not (encoded.scale > 0).all():
        raise CodecError("features_scale holds a value that is not positive")
    # Decoding multiplies before it adds: both the product and the sum must fit.
    span = encoded.scale.astype(np.float64) * _LEVELS.get(encoded.codec, 1)
    if max(span.max(initial=0.0), np.abs(span + encoded.offset).max(initial=0.0)) >= np.finfo(np.float32).max:
        raise CodecError("the features of a channel span more than float32 can decode: choose fp32")
