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
    by_channel = np.ascontiguousarray(values.transpose(1, 0, 2, 3)).reshape(values.shape[1], -1)
    step = -(-by_channel.shape[1] // _LOOKED_AT)
    # An odd step takes columns in turn, where rows have an even number of them.
    looked_at = np.sort(by_channel[:, :: step | 1].astype(np.float64), axis=1)
    last = looked_at.shape[1] - 1
    highs = [high, *(looked_at[:, round((1 - share) * last)] for share in SHARES[1:])]
    lows = [low, *(looked_at[:, round(share * last)] for share in SHARES[1:])]
    best = low, high
    best_error = _error(looked_at, *best, levels)
    # The upper end first: of features behind a ReLU the lower one is at 0 already.
    for is_high, candidates in ((True, highs), (False, lows), (True, highs)):
        for each in candidates[1:]:
            chosen = (best[0], each) if is_high else (each, best[1])
            error = np.where(chosen[1] > chosen[0], _error(looked_at, *chosen, levels), np.inf)
            is_better = error < best_error
            best = np.where(is_better, chosen[0], best[0]), np.where(is_better, chosen[1], best[1])
            best_error = np.minimum(error, best_error)
    return best


def _error(
    values: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], levels: int
) -> NDArray[np.float64]:
    """Sum the squares of what rounding ``[C, k]`` to levels changes, by channel."""
    step = np.maximum((high - low) / levels, np.finfo(np.float32).tiny)[:, None]
    # In steps: squares of large values would overflow.
    places = (values - low[:, None]) / step
    rounded = np.clip(np.rint(places), 0, levels)
    return np.asarray(((places - rounded) ** 2).sum(axis=1) * step[:, 0] * step[:, 0])
