"""What a symbol is expected to be, from its neighbours to the left, above, and above to the left.

Four ways, from one table for all symbols (:data:`ONE`) to one for each of many neighbourhoods: more tables
tell more and take more bytes, so that the writer of a shard chooses. Neighbours beyond a lane's border are 0.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from gkt_core.wire.levels.rans import WIDTH

# Ways to tell contexts apart.
ONE, LEFT, FEW, MANY = range(4)
NUM_MODES = 4
NEIGHBOURHOODS = WIDTH**3
# Unrest of a neighbourhood: how far those beside a corner are from it, together.
_UNREST = {FEW: (1, 3), MANY: (1, 2, 3, 5)}


@functools.cache
def context_table(bits: int, mode: int) -> NDArray[np.uint16]:
    """Give the context of each neighbourhood, ``[4096]``, at ``left * 256 + above * 16 + corner``.

    Of 3 and 4 bits a symbol is a level, which is guessed as LOCO-I does (Weinberger, Seroussi, Sapiro, 2000):
    contexts are the guess, and how restless the neighbourhood is. Of 1 and 2 bits it is several levels:
    contexts are the last one to the left, and those above, or their sum.
    """
    place = np.arange(NEIGHBOURHOODS)
    left, above, corner = place >> 8, (place >> 4) & 15, place & 15
    if mode == ONE:
        contexts = np.zeros_like(place)
    elif bits < 3:
        last = left >> (4 - bits)
        each = [(above >> shift) & ((1 << bits) - 1) for shift in range(0, 4, bits)]
        beside = {LEFT: 0 * above, FEW: sum(each), MANY: above}[mode]
        contexts = np.asarray(beside << bits | last)
    else:
        guess = np.clip(left + above - corner, np.minimum(left, above), np.maximum(left, above))
        guess = np.minimum(guess, (1 << bits) - 1)
        unrest = np.abs(left - corner) + np.abs(above - corner)
        contexts = guess
        if mode != LEFT:
            borders = _UNREST[mode]
            contexts = guess * (len(borders) + 1) + np.digitize(unrest, borders)
    table: NDArray[np.uint16] = contexts.astype(np.uint16)
    table.setflags(write=False)
    return table


def num_contexts(bits: int, mode: int) -> int:
    """Count the contexts of a way."""
    return int(context_table(bits, mode).max()) + 1
