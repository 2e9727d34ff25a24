"""Zstandard, from the standard library where it has it, from its backport elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from gkt_core.errors import ShardError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 3
_PIECE_BYTES = 1 << 20


def compress(data: bytes) -> bytes:
    """Compress a shard for the wire."""
    return bytes(zstd.compress(data, LEVEL))


class FrameDecompressor:
    """Decompress one frame piece by piece, to never more than ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self._decompressor = zstd.ZstdDecompressor()
        self._max_bytes, self._left = max_bytes, max_bytes

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Decompress the next piece, into pieces of at most 1 MiB.

        Raises:
            ShardError: No valid frame, bytes behind it, or more than ``max_bytes`` come out.
        """
        pending = True
        while pending:
            if self._decompressor.eof:
                if data:
                    raise ShardError(f"{len(data)} bytes follow the Zstandard frame")
                return
            try:
                out = self._decompressor.decompress(data, max_length=min(self._left + 1, _PIECE_BYTES))
            except zstd.ZstdError as error:
                raise ShardError(f"the body is no Zstandard frame: {error}") from error
            if len(out) > self._left:
                raise ShardError(
                    f"the shard decompresses to more than the {self._max_bytes} bytes a shard can have"
                )
            self._left -= len(out)
            if out:
                yield bytes(out)
            data = self._decompressor.unused_data if self._decompressor.eof else b""
            pending = self._decompressor.eof or not self._decompressor.needs_input

    def finish(self) -> bytes:
        """Check that the frame is whole after the last piece; nothing is left to give.

        Raises:
            ShardError: The frame is not at its end.
        """
        if not self._decompressor.eof:
            raise ShardError("the Zstandard frame is cut short")
        return b""


def decompress(data: bytes, max_bytes: int) -> bytes:
    """Decompress exactly one Zstandard frame.

    Raises:
        ShardError: No valid frame, bytes behind it, or more than ``max_bytes`` come out.
    """
    decompressor = FrameDecompressor(max_bytes)
    out = b"".join(decompressor.feed(data))
    decompressor.finish()
    return out
