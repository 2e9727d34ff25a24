"""A feature shard as it travels with its levels coded; the very same file comes out of it.

::

    0   "GKLV"                   16  H, pixels of a column       36  bytes before the features in the file
    4   1, the version           20  W, pixels of a row          40  tables, one Zstandard frame
    5   bits of a level          24  words of the levels         ..  what is left of the rest
    6   way of the contexts      28  bytes of the tables         ..  states, four bytes a lane
    7   0                        32  bytes of the rest           ..  words, two bytes each
    8   N, samples
    12  C, channels

All numbers are little-endian and without sign, those from byte 8 on of four bytes. The *rest* is one
Zstandard frame: the shard's bytes before its features, and those behind them. Its first two bytes a lane are
what the lanes began with, and stand nowhere else; a shorter rest is filled up with zeros. The whole format
stands in ``docs/levels-format.md``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from gkt_core.errors import ShardError
from gkt_core.wire.compression import compress, decompress
from gkt_core.wire.levels.coder import CodedLevels, Layout, decode_levels, encode_levels
from gkt_core.wire.levels.contexts import NUM_MODES, num_contexts
from gkt_core.wire.levels.packing import packed_symbols, symbols_of
from gkt_core.wire.levels.rans import WIDTH, Coded

_HEAD = struct.Struct("<4sBBBB8I")
_MAGIC, _VERSION = b"GKLV", 1


@dataclass(frozen=True, slots=True)
class LevelFeatures:
    """The features that a frame may hold.

    Attributes:
        bits: Of a level.
        feature_shape: ``(C, H, W)`` of one sample.
    """

    bits: int
    feature_shape: tuple[int, int, int]

    @property
    def layout(self) -> Layout | None:
        """How their symbols lie in lanes; None where they cannot be coded."""
        return Layout.of(self.bits, self.feature_shape)

    @property
    def sample_bytes(self) -> int:
        """Of the packed levels of one sample."""
        channels, height, width = self.feature_shape
        return channels * height * width * self.bits // 8


def write_frame(shard: bytes, begin: int, num_samples: int, features: LevelFeatures) -> bytes:
    """Code the levels of a shard.

    Args:
        shard: The whole file.
        begin: Where its packed levels begin.
        num_samples: Samples in it.
        features: What they are, of a shape that can be coded.
    """
    layout = features.layout
    if layout is None:
        raise ShardError(f"levels of shape {features.feature_shape} cannot be coded: send them as they are")
    end = begin + num_samples * features.sample_bytes
    packed = np.frombuffer(shard, np.uint8)[begin:end]
    rest = compress(shard[:begin] + shard[end:])
    num_begins = 2 * num_samples * layout.lanes
    begins = np.frombuffer(rest[:num_begins].ljust(num_begins, b"\0"), "<u2").astype(np.uint16)
    coded = encode_levels(symbols_of(packed, features.bits), layout, begins)
    table = compress(coded.table.tobytes())
    words = coded.coded.words
    numbers = (num_samples, *features.feature_shape, words.size, len(table), len(rest), begin)
    head = _HEAD.pack(_MAGIC, _VERSION, features.bits, coded.mode, 0, *numbers)
    states = coded.coded.states.astype("<u4").tobytes()
    return b"".join((head, table, rest[num_begins:], states, words.astype("<u2").tobytes()))


def read_frame(body: bytes, features: LevelFeatures, max_bytes: int) -> bytes:
    """Give the shard that a frame holds, which is not looked at any further.

    Memory and work are bounded by ``max_bytes`` before anything is decoded.

    Raises:
        ShardError: The frame is none, of other features, cut short, damaged, or holds more than that.
    """
    if len(body) < _HEAD.size or body[:4] != _MAGIC:
        raise ShardError(f"a body of {len(body)} bytes is no frame of levels")
    _, version, bits, mode, zero, *numbers = _HEAD.unpack_from(body)
    num, channels, height, width, num_words, table_bytes, rest_bytes, begin = numbers
    if version != _VERSION or zero:
        raise ShardError(f"levels are of version {version}.{zero}, this server reads {_VERSION}.0")
    if (bits, (channels, height, width)) != (features.bits, features.feature_shape):
        raise ShardError(
            f"levels are of {bits} bits and {channels}x{height}x{width}, this run expects {features.bits} "
            f"bits and {'x'.join(map(str, features.feature_shape))}"
        )
    layout = features.layout
    if layout is None:
        raise ShardError(f"levels of {channels}x{height}x{width} are not coded: send them as they are")
    most_samples = max_bytes // features.sample_bytes
    if not 1 <= num <= most_samples:
        raise ShardError(f"levels of {num} samples, a shard of this run holds 1 to {most_samples}")
    if mode >= NUM_MODES:
        raise ShardError(f"levels have contexts of the way {mode}, expected 0 to {NUM_MODES - 1}")
    num_lanes = num * layout.lanes
    left_bytes = max(0, rest_bytes - 2 * num_lanes)
    sizes = (_HEAD.size, table_bytes, left_bytes, 4 * num_lanes, 2 * num_words)
    if len(body) != sum(sizes):
        raise ShardError(f"the frame of levels has {len(body)} bytes, its head says {sum(sizes)}")
    ends = np.cumsum(sizes)
    table, left, states, words = (body[ends[i] : ends[i + 1]] for i in range(4))
    frequencies = decompress(table, num_contexts(bits, mode) * WIDTH)
    levels = CodedLevels(
        mode,
        np.frombuffer(frequencies, np.uint8),
        Coded(np.frombuffer(states, "<u4").astype(np.uint32), np.frombuffer(words, "<u2").astype(np.uint16)),
    )
    symbols, begins = decode_levels(levels, layout)
    known = begins.astype("<u2").tobytes()
    if any(known[rest_bytes:]):
        raise ShardError("the lanes of the levels begin with more than the rest: the body was damaged")
    packed = packed_symbols(symbols, bits).tobytes()
    rest = decompress(known[:rest_bytes] + left, max_bytes - len(packed))
    if begin > len(rest):
        raise ShardError(f"levels begin at byte {begin} of a shard with {len(rest)} bytes beside them")
    return b"".join((rest[:begin], packed, rest[begin:]))
