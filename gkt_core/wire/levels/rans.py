"""Interleaved rANS: many coders side by side, a step of numpy for all of them at a time.

A *lane* codes a sequence of symbols of its own; all lanes are as long, and share one stream of 16-bit words.
The state of a lane is a whole number of 32 bits, at least :data:`LOW`; frequencies of a context sum to
``1 << FREQUENCY_BITS``. What a lane begins with is a word of the caller's: the decoder gives it back, so that
a lane costs a byte and not three. After Duda, arXiv:1311.2540, and Giesen, arXiv:1402.3392.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import ShardError

Symbols: TypeAlias = NDArray[np.uint8]
Words: TypeAlias = NDArray[np.uint16]

FREQUENCY_BITS, WORD_BITS = 12, 16
TOTAL = 1 << FREQUENCY_BITS
LOW = 1 << WORD_BITS
# Symbols of one alphabet at most: four bits.
WIDTH = 16
# So much above 1 that a quotient below 2^20 is rounded down to the whole number that it should be.
_ABOVE_ONE = 1 + 2.0**-40
# Symbols that are looked up at once; each takes forty bytes.
_LOOKED_UP = 1 << 14


@dataclass(frozen=True, slots=True)
class Coded:
    """What lanes became.

    Attributes:
        states: ``[lanes] uint32``: where the decoder begins.
        words: ``[W] uint16``, in the order in which the decoder takes them.
    """

    states: NDArray[np.uint32]
    words: Words


def encode(places: NDArray[np.uint16], frequencies: NDArray[np.uint16], begins: Words) -> Coded:
    """Code the symbols of all lanes.

    Args:
        places: ``[steps, lanes]``: of each symbol its context times :data:`WIDTH` plus the symbol.
        frequencies: ``[contexts, WIDTH]``, each row a sum of :data:`TOTAL`; of every symbol that occurs there
            at least 1.
        begins: ``[lanes]``: what the decoder gives back.
    """
    steps, lanes = places.shape
    exact = frequencies.astype(np.float64)
    starts = (np.cumsum(exact, axis=1) - exact).ravel()
    exact = exact.ravel()
    inverses = _ABOVE_ONE / np.maximum(exact, 1)
    # Whole numbers below 2^53 are exact in float64, whose products and floors are vectorised everywhere.
    most, others = exact * (LOW << (WORD_BITS - FREQUENCY_BITS)), TOTAL - exact
    state = begins.astype(np.float64) + LOW
    # What a symbol stands for is looked up for several steps at once, as many as stay in a cache.
    block = max(1, min(steps, _LOOKED_UP // max(1, lanes)))
    place = np.empty((block, lanes), np.intp)
    inverse, start, bound, other = (np.empty((block, lanes)) for _ in range(4))
    quotient, is_full = np.empty(lanes), np.empty(lanes, np.bool_)
    wholes: list[NDArray[np.float64]] = []
    for end in range(steps, 0, -block):
        num = min(block, end)
        here = place[:num]
        np.copyto(here, places[end - num : end])
        for table, looked_up in ((inverses, inverse), (starts, start), (most, bound), (others, other)):
            table.take(here, out=looked_up[:num], mode="clip")
        for row in range(num - 1, -1, -1):
            np.greater_equal(state, bound[row], out=is_full)
            full = is_full.nonzero()[0]
            if full.size:
                whole = state.take(full)
                wholes.append(whole)
                rest = whole * (1 / LOW)
                np.floor(rest, out=rest)
                state[full] = rest
            np.multiply(state, inverse[row], out=quotient)
            np.floor(quotient, out=quotient)
            np.multiply(quotient, other[row], out=quotient)
            np.add(quotient, start[row], out=quotient)
            np.add(state, quotient, out=state)
    wholes.reverse()
    # Of each state that was full, its low half is the word.
    left = np.concatenate(wholes) if wholes else np.zeros(0)
    words = (left - np.floor(left * (1 / LOW)) * LOW).astype(np.uint16)
    return Coded(state.astype(np.uint32), words)


class Decoder:
    """Decodes step by step: which context a symbol is in may follow from the ones before.

    Args:
        coded: What :func:`encode` gave, or anything of its shape.
        frequencies: ``[contexts, WIDTH]``, each row a sum of :data:`TOTAL`.

    Raises:
        ShardError: A state is none.
    """

    def __init__(self, coded: Coded, frequencies: NDArray[np.uint16]) -> None:
        if (coded.states < LOW).any():
            raise ShardError("the levels begin with a state that no coder leaves")
        wide = frequencies.astype(np.uint32)
        self._shares, self._starts = wide.ravel(), (np.cumsum(wide, axis=1, dtype=np.uint32) - wide).ravel()
        each = np.tile(np.arange(WIDTH, dtype=np.uint8), len(wide))
        self._symbols = np.repeat(each, self._shares)
        self._state, self._words, self._taken = coded.states.copy(), coded.words, 0
        lanes = len(self._state)
        self._slot, self._high, self._share = (np.empty(lanes, np.uint32) for _ in range(3))
        self._place, self._is_empty = np.empty(lanes, np.intp), np.empty(lanes, np.bool_)

    def step(self, contexts: NDArray[np.intp], out: Symbols) -> None:
        """Decode the next symbol of each lane.

        Args:
            contexts: ``[lanes]``, each below the number of contexts.
            out: ``[lanes]``: takes the symbols.

        Raises:
            ShardError: There are fewer words than lanes want.
        """
        state, slot, high, place = self._state, self._slot, self._high, self._place
        np.bitwise_and(state, TOTAL - 1, out=slot)
        np.left_shift(contexts, FREQUENCY_BITS, out=place)
        np.add(place, slot, out=place, casting="unsafe")
        self._symbols.take(place, out=out, mode="clip")
        np.multiply(contexts, WIDTH, out=place)
        np.add(place, out, out=place, casting="unsafe")
        np.right_shift(state, FREQUENCY_BITS, out=high)
        self._shares.take(place, out=self._share, mode="clip")
        np.multiply(high, self._share, out=high)
        np.add(high, slot, out=high)
        self._starts.take(place, out=self._share, mode="clip")
        np.subtract(high, self._share, out=state)
        np.less(state, LOW, out=self._is_empty)
        empty = self._is_empty.nonzero()[0]
        if empty.size:
            end = self._taken + empty.size
            if end > self._words.size:
                raise ShardError(f"the levels are cut short: {self._words.size} words, and more are wanted")
            state[empty] = (state[empty] << np.uint32(WORD_BITS)) | self._words[self._taken : end]
            self._taken = end

    def finish(self) -> Words:
        """Give what the lanes began with, ``[lanes]``, once all steps are done.

        Raises:
            ShardError: Words are left, or a state is not where a coder begins.
        """
        if self._taken != self._words.size:
            raise ShardError(f"{self._words.size - self._taken} words of levels are left over")
        begins = self._state - np.uint32(LOW)
        if (begins >= LOW).any():
            raise ShardError("the levels do not end where a coder begins: the body was damaged")
        return begins.astype(np.uint16)
