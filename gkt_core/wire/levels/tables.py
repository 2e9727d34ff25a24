"""Frequencies of symbols as they travel: a byte each, which says them within some percent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import ShardError
from gkt_core.wire.levels.rans import TOTAL, WIDTH

# Byte v > 0 stands for this weight: eight steps to a factor of two, from 1 to the sum of all frequencies.
_WEIGHTS = np.array([(8 + step % 8) << (step // 8) for step in range(97)], np.int64)


def table_bytes(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Write how often symbols occurred, ``[contexts, WIDTH]``; what occurred keeps a frequency above 0."""
    wanted = counts * (8 * TOTAL) // np.maximum(counts.sum(axis=1, keepdims=True), 1)
    borders = (_WEIGHTS[1:] + _WEIGHTS[:-1]) // 2
    steps = np.searchsorted(borders, wanted, side="right")
    return np.where(counts > 0, steps + 1, 0).astype(np.uint8)


def read_table(written: NDArray[np.uint8], num_contexts: int) -> NDArray[np.uint16]:
    """Make frequencies ``[contexts, WIDTH]``, each row a sum of :data:`TOTAL`, in whole numbers.

    Each is its share of the weights, rounded down, and at least 1 where the weight is not 0; what is missing
    or too much is the most frequent symbol's. A context without symbols has the first one alone.

    Raises:
        ShardError: The table has another length, or bytes that stand for no weight.
    """
    if written.size != num_contexts * WIDTH:
        raise ShardError(f"tables of levels have {written.size} frequencies, expected {num_contexts * WIDTH}")
    if written.max(initial=0) > len(_WEIGHTS):
        raise ShardError(f"a table of levels holds {written.max()}, expected {len(_WEIGHTS)} at most")
    rows = written.reshape(num_contexts, WIDTH)
    weights = np.where(rows > 0, _WEIGHTS[np.maximum(rows, 1) - 1], 0)
    weights[weights.sum(axis=1) == 0, 0] = 1
    shares = weights * TOTAL // weights.sum(axis=1, keepdims=True)
    shares = np.where(weights > 0, np.maximum(shares, 1), 0)
    shares[np.arange(num_contexts), shares.argmax(axis=1)] += TOTAL - shares.sum(axis=1)
    return shares.astype(np.uint16)
