"""Levels of 1 to 4 bits as bytes, low bits first, and as symbols of at most four bits that a coder takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
# So many levels fill so many whole bytes.
_GROUPS = {1: (8, 1), 2: (4, 1), 3: (8, 3), 4: (2, 1)}


def group_of(bits: int) -> tuple[int, int]:
    """Say how many neighbouring levels share how many bytes."""
    return _GROUPS[bits]


def pack(levels: Bytes, bits: int) -> Bytes:
    """Pack ``[..., k]`` levels, each below ``1 << bits``, into ``[..., k * bits / 8]`` bytes."""
    in_group, num_bytes = _GROUPS[bits]
    grouped = levels.reshape(*levels.shape[:-1], -1, in_group)
    if num_bytes == 1:
        packed = grouped[..., 0].copy()
        for place in range(1, in_group):
            packed |= grouped[..., place] << np.uint8(bits * place)
        return packed
    whole = np.zeros(grouped.shape[:-1], "<u4")
    for place in range(in_group):
        whole |= grouped[..., place].astype(np.uint32) << np.uint32(bits * place)
    parts = whole.view(np.uint8).reshape(*whole.shape, 4)[..., :num_bytes]
    return np.ascontiguousarray(parts).reshape(*levels.shape[:-1], -1)


def unpack(packed: Bytes, bits: int) -> Bytes:
    """Undo :func:`pack`."""
    in_group, num_bytes = _GROUPS[bits]
    grouped = packed.reshape(*packed.shape[:-1], -1, num_bytes)
    levels = np.empty((*grouped.shape[:-1], in_group), np.uint8)
    if num_bytes == 1:
        whole: NDArray[np.unsignedinteger] = grouped[..., 0]
    else:
        padded = np.zeros((*grouped.shape[:-1], 4), np.uint8)
        padded[..., :num_bytes] = grouped
        whole = padded.view("<u4")[..., 0]
    for place in range(in_group):
        levels[..., place] = (whole >> whole.dtype.type(bits * place)) & whole.dtype.type((1 << bits) - 1)
    return levels.reshape(*packed.shape[:-1], -1)


def levels_in_symbol(bits: int) -> int:
    """Say how many neighbouring levels of a row are one symbol: those of 1 and 2 bits that fill four."""
    return {1: 4, 2: 2}.get(bits, 1)


def symbols_of(packed: Bytes, bits: int) -> Bytes:
    """Give the symbols ``[k]`` of packed bytes ``[b]``: their halves, or of 3 bits the levels."""
    return unpack(packed, 3 if bits == 3 else 4)


def packed_symbols(symbols: Bytes, bits: int) -> Bytes:
    """Undo :func:`symbols_of`."""
    return pack(symbols, 3 if bits == 3 else 4)
