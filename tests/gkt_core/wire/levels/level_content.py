"""Levels as features have them, the same on every machine: smooth, and half of them zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gkt_core.wire.levels.packing import pack


def smooth_levels(bits: int, shape: tuple[int, int, int], num: int, seed: int = 0) -> NDArray[np.uint8]:
    """``[num, C, H, W]`` levels of which neighbours are alike."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    walk = rng.integers(-2, 3, (num, channels, height, width)).cumsum(axis=2).cumsum(axis=3)
    levels: NDArray[np.uint8] = (np.maximum(walk, 0) >> 1).clip(0, (1 << bits) - 1).astype(np.uint8)
    return levels


def packed_levels(bits: int, shape: tuple[int, int, int], num: int, seed: int = 0) -> NDArray[np.uint8]:
    """The bytes of :func:`smooth_levels`."""
    return pack(smooth_levels(bits, shape, num, seed).reshape(num, shape[0], -1), bits).reshape(-1)
