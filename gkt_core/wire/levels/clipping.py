"""Where the few levels of 1 to 3 bits lie: at the percentiles that round a channel's values least.

Between the least and the greatest value, four levels spend most of themselves on few values. Each end is
moved to the percentile with the least square error, of a sample of the values; what lies beyond is clipped.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Shares of a channel's values that may be clipped at an end.
SHARES = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
# Of each channel; more do not move the ends.
_LOOKED_AT = 2048


def clipped_range(
    values: NDArray[np.float32], low: NDArray[np.float64], high: NDArray[np.float64], levels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Choose the values of the first and the last level of each channel.

    Args:
        values: ``[N, C, H, W]``, finite.
        low: ``[C]``: the least value of each channel.
        high: ``[C]``: the greatest.
        levels: The last level, which is as many steps from the first.
    """
    num, channels = values.shape[:2]
    size = values[0, 0].size
    step = -(-num * size // _LOOKED_AT)
    # An odd step takes columns in turn, where rows have an even number of them.
    samples, pixels = np.divmod(np.arange(0, num * size, step | 1), size)
    of_channel = values.reshape(num, channels, size)[samples, :, pixels].T
    # A row after the other in memory: sums of squares are of one order on every machine.
    looked_at = np.sort(np.ascontiguousarray(of_channel, np.float64), axis=1)
    last = looked_at.shape[1] - 1
    highs = [high, *(looked_at[:, round((1 - share) * last)] for share in SHARES[1:])]
    lows = [low, *(looked_at[:, round(share * last)] for share in SHARES[1:])]
    ends = _Ends(looked_at, levels, low, high)
    # The upper end first: of features behind a ReLU the lower one is at 0 already.
    ends.move_high(highs)
    ends.move_low(lows)
    if not np.array_equal(ends.low, low):
        ends.move_high(highs)
    return ends.low, ends.high


class _Ends:
    """The values of the first and the last level of each channel, and what rounding to them changes."""

    def __init__(
        self, values: NDArray[np.float64], levels: int, low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> None:
        self._values, self._levels = values, levels
        self.low, self.high = low, high
        self._least = _error(values, low, high, levels)

    def move_high(self, candidates: list[NDArray[np.float64]]) -> None:
        for each in candidates[1:]:
            self._move(self.low, each)

    def move_low(self, candidates: list[NDArray[np.float64]]) -> None:
        for each in candidates[1:]:
            self._move(each, self.high)

    def _move(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        """Take these ends where they change less."""
        if np.array_equal(low, self.low) and np.array_equal(high, self.high):
            return
        error = np.where(high > low, _error(self._values, low, high, self._levels), np.inf)
        is_less = error < self._least
        self.low, self.high = np.where(is_less, low, self.low), np.where(is_less, high, self.high)
        self._least = np.minimum(error, self._least)


def _error(
    values: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], levels: int
) -> NDArray[np.float64]:
    """Sum the squares of what rounding ``[C, k]`` to levels changes, by channel."""
    step = np.maximum((high - low) / levels, np.finfo(np.float32).tiny)[:, None]
    # In steps: squares of large values would overflow.
    places = values - low[:, None]
    places /= step
    rounded = np.rint(places)
    np.clip(rounded, 0, levels, out=rounded)
    places -= rounded
    np.square(places, out=places)
    return np.asarray(places.sum(axis=1) * step[:, 0] * step[:, 0])
