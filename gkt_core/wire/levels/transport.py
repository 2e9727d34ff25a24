"""How a shard travels: as it is, as one Zstandard frame, or with its levels coded; and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gkt_core.config.run_config import CODEC_BITS, PACKED_CODECS
from gkt_core.errors import ShardError
from gkt_core.wire.compression import compress
from gkt_core.wire.levels.frame import LevelFeatures, read_frame, write_frame
from gkt_core.wire.protocol import LEVELS, SHA256_HEADER, ZSTD
from gkt_core.wire.shard_file import parse

_FEW_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class WireBody:
    """A shard as it travels.

    Attributes:
        data: The body of the request.
        encoding: Its content encoding; empty for none.
    """

    data: bytes
    encoding: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        said = {SHA256_HEADER: hashlib.sha256(self.data).hexdigest()}
        return said | ({"Content-Encoding": self.encoding} if self.encoding else {})


def level_features(codec: str, feature_shape: tuple[int, int, int]) -> LevelFeatures | None:
    """Say what a frame of levels holds in such a run; None where features are not coded so."""
    if codec not in PACKED_CODECS:
        return None
    features = LevelFeatures(CODEC_BITS[codec], feature_shape)
    return None if features.layout is None else features


def wire_body(shard: bytes, levels: LevelFeatures | None, *, compressed: bool) -> WireBody:
    """Make a feature shard ready to travel.

    Args:
        shard: The file.
        levels: What its levels are, if they are to be coded.
        compressed: Whether it is made smaller at all.
    """
    if not compressed:
        return WireBody(shard)
    if levels is None:
        return WireBody(compress(shard), ZSTD)
    whole = np.frombuffer(shard, np.uint8)
    packed = parse(whole)[0]["features"]
    begin = packed.ctypes.data - whole.ctypes.data
    coded = WireBody(write_frame(shard, begin, len(packed), levels), LEVELS)
    if packed.size < _FEW_BYTES:
        # Tables may take more than they save.
        squeezed = WireBody(compress(shard), ZSTD)
        return min(squeezed, coded, key=lambda body: len(body.data))
    return coded


class FrameOfLevels:
    """Takes a body piece by piece, as :class:`gkt_core.wire.compression.FrameDecompressor` does.

    Only the whole body can be decoded: it is kept until then, up to a length that no valid one has.

    Args:
        levels: What its levels are.
        max_bytes: Of the largest shard.
    """

    def __init__(self, levels: LevelFeatures, max_bytes: int) -> None:
        self._levels, self._max_bytes, self._body = levels, max_bytes, bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Take the next piece; nothing comes out before :meth:`finish`.

        Raises:
            ShardError: The body is longer than any.
        """
        # States and tables come on top of levels that no coder could make smaller.
        if len(self._body) + len(data) > 2 * self._max_bytes:
            raise ShardError(f"a body of levels has more than {2 * self._max_bytes} bytes")
        self._body += data
        return iter(())

    def finish(self) -> bytes:
        """Give the shard.

        Raises:
            ShardError: The body is no frame of this run's levels.
        """
        return read_frame(bytes(self._body), self._levels, self._max_bytes)
