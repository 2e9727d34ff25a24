"""Zstandard, from the standard library where it has it, from its backport elsewhere."""

from __future__ import annotations

import sys

from gkt_core.errors import ShardError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 3


def compress(data: bytes) -> bytes:
    """Compress a shard for the wire."""
    return bytes(zstd.compress(data, LEVEL))


def decompress(data: bytes, max_bytes: int) -> bytes:
    """Decompress one frame, never beyond a limit.

    Args:
        data: Exactly one Zstandard frame.
        max_bytes: The most that may come out.

    Raises:
        ShardError: No valid frame, bytes behind it, or more than ``max_bytes`` come out.
    """
    decompressor = zstd.ZstdDecompressor()
    try:
        out = decompressor.decompress(data, max_length=max_bytes + 1)
    except zstd.ZstdError as error:
        raise ShardError(f"the body is no Zstandard frame: {error}") from error
    if len(out) > max_bytes:
        raise ShardError(f"the shard decompresses to more than the {max_bytes} bytes a shard can have")
    if not decompressor.eof:
        raise ShardError("the Zstandard frame is cut short")
    if decompressor.unused_data:
        raise ShardError(f"{len(decompressor.unused_data)} bytes follow the Zstandard frame")
    return bytes(out)
