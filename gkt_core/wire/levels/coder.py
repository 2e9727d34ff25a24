"""Levels of a shard <-> the words of a coder that expects each from its neighbours.

A sample's symbols are cut into lanes, which are coded side by side: bands of a channel's rows, whole
channels, or several channels, by a rule that both sides know. Neighbours are those within the lane's channel
and band.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import ShardError
from gkt_core.wire.levels.contexts import NEIGHBOURHOODS, NUM_MODES, context_table, num_contexts
from gkt_core.wire.levels.packing import group_of, levels_in_symbol
from gkt_core.wire.levels.rans import WIDTH, Coded, Decoder, Symbols, Words, encode
from gkt_core.wire.levels.tables import read_table, table_bytes

# Symbols of a lane, where the shape allows it.
_LEAST_STEPS, _MOST_STEPS = 128, 1024
# Symbols that are looked up at a time: eight bytes each stay in a cache.
_BLOCK = 1 << 17
# What an entry of a table takes once it is compressed, about.
_ENTRY_BYTES = 0.75


@dataclass(frozen=True, slots=True)
class Layout:
    """How the symbols of samples lie in lanes.

    Attributes:
        bits: Of a level.
        channels: Of a sample.
        height: Rows of a channel.
        width: Symbols of a row.
    """

    bits: int
    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, bits: int, feature_shape: tuple[int, int, int]) -> Layout | None:
        """Lay out features ``(C, H, W)``; None where symbols or bytes reach over an end."""
        channels, height, width = feature_shape
        size = levels_in_symbol(bits)
        if width % size or height * width % group_of(bits)[0]:
            return None
        return cls(bits, channels, height, width // size)

    @property
    def lane_shape(self) -> tuple[int, int]:
        """Channels and rows of a lane: as many rows as are few enough, as few channels as are enough."""
        rows = max(each for each in _divisors(self.height) if each == 1 or each * self.width <= _MOST_STEPS)
        if rows < self.height:
            return 1, rows
        size = self.height * self.width
        enough = [each for each in _divisors(self.channels) if each * size >= _LEAST_STEPS]
        return min(enough, default=self.channels), rows

    @property
    def lanes(self) -> int:
        """Lanes of a sample."""
        channels, rows = self.lane_shape
        return self.channels // channels * (self.height // rows)

    @property
    def symbols(self) -> int:
        """Symbols of a sample."""
        return self.channels * self.height * self.width

    @property
    def steps(self) -> int:
        """Symbols of a lane."""
        return self.symbols // self.lanes

    def to_lanes(self, symbols: Symbols) -> Symbols:
        """Turn ``[n * symbols]`` into ``[steps, n * lanes]``."""
        lanes = symbols.reshape(-1, self.steps)
        return np.ascontiguousarray(lanes.T)

    def from_lanes(self, lanes: Symbols) -> Symbols:
        """Undo :meth:`to_lanes`."""
        return np.ascontiguousarray(lanes.T).reshape(-1)


@dataclass(frozen=True, slots=True)
class CodedLevels:
    """Levels as they travel.

    Attributes:
        mode: Of the contexts (:mod:`gkt_core.wire.levels.contexts`).
        table: The bytes of their frequencies.
        coded: States and words.
    """

    mode: int
    table: NDArray[np.uint8]
    coded: Coded


def encode_levels(symbols: Symbols, layout: Layout, begins: Words) -> CodedLevels:
    """Code the symbols ``[n * symbols]`` of n samples.

    Args:
        symbols: As :func:`gkt_core.wire.levels.packing.symbols_of` gives them.
        layout: Of the features.
        begins: A word for each of the n * lanes lanes, which comes back.
    """
    places = _neighbours(layout.to_lanes(symbols), layout)
    flat = places.reshape(-1)
    counts = np.zeros(NEIGHBOURHOODS * WIDTH, np.int64)
    for begin in range(0, flat.size, _BLOCK):
        counts += np.bincount(flat[begin : begin + _BLOCK], minlength=counts.size)
    mode, table = _choose(counts, layout.bits)
    contexts = context_table(layout.bits, mode).astype(np.int64) * WIDTH
    own = (contexts[:, None] + np.arange(WIDTH)).ravel().astype(np.uint16)
    for begin in range(0, flat.size, _BLOCK):
        flat[begin : begin + _BLOCK] = own.take(flat[begin : begin + _BLOCK])
    frequencies = read_table(table, num_contexts(layout.bits, mode))
    return CodedLevels(mode, table, encode(places, frequencies, begins))


def decode_levels(coded: CodedLevels, layout: Layout) -> tuple[Symbols, Words]:
    """Give the symbols ``[n * symbols]``, and what the lanes began with.

    Raises:
        ShardError: These are no levels of such a layout.
    """
    if not 0 <= coded.mode < NUM_MODES:
        raise ShardError(f"levels have contexts of the way {coded.mode}, expected 0 to {NUM_MODES - 1}")
    frequencies = read_table(coded.table, num_contexts(layout.bits, coded.mode))
    decoder = Decoder(coded.coded, frequencies)
    table = context_table(layout.bits, coded.mode).astype(np.intp)
    # Rows of zeros before the first step stand for what is beyond the border.
    before = layout.width + 1
    lanes = len(coded.coded.states)
    rows = np.zeros((before + layout.steps, lanes), np.uint8)
    place, contexts = np.empty(lanes, np.intp), np.empty(lanes, np.intp)
    border = np.zeros(lanes, np.uint8)
    size = layout.lane_shape[1] * layout.width
    for step in range(layout.steps):
        own = before + step
        has_left, has_above = step % layout.width > 0, step % size >= layout.width
        left = rows[own - 1] if has_left else border
        above = rows[own - layout.width] if has_above else border
        corner = rows[own - before] if has_left and has_above else border
        np.left_shift(left, 8, out=place, dtype=np.intp)
        np.add(place, above.astype(np.intp) << 4, out=place)
        np.add(place, corner, out=place, casting="unsafe")
        table.take(place, out=contexts, mode="clip")
        decoder.step(contexts, rows[own])
    return layout.from_lanes(rows[before:]), decoder.finish()


def _neighbours(lanes: Symbols, layout: Layout) -> NDArray[np.uint16]:
    """Give each symbol with those beside it: left, above, corner and itself, four bits each."""
    rows = layout.lane_shape[1]
    grid = lanes.reshape(-1, rows, layout.width, lanes.shape[1])
    places = grid.astype(np.uint16)
    places[:, :, 1:] |= grid[:, :, :-1].astype(np.uint16) << np.uint16(12)
    places[:, 1:] |= grid[:, :-1].astype(np.uint16) << np.uint16(8)
    places[:, 1:, 1:] |= grid[:, :-1, :-1].astype(np.uint16) << np.uint16(4)
    return places.reshape(lanes.shape)


def _choose(counts: NDArray[np.int64], bits: int) -> tuple[int, NDArray[np.uint8]]:
    """Choose the contexts that take the fewest bytes, their tables included."""
    occurring = counts.nonzero()[0]
    weights = counts[occurring].astype(np.float64)
    choices = []
    for mode in range(NUM_MODES):
        num = num_contexts(bits, mode)
        own = context_table(bits, mode)[occurring // WIDTH].astype(np.intp) * WIDTH + occurring % WIDTH
        of_mode = np.bincount(own, weights=weights, minlength=num * WIDTH).reshape(num, WIDTH)
        shares = of_mode / np.maximum(of_mode.sum(axis=1, keepdims=True), 1)
        told = -(of_mode * np.log2(np.where(of_mode > 0, shares, 1))).sum() / 8
        choices.append((told + _ENTRY_BYTES * np.count_nonzero(of_mode), mode, of_mode))
    _, mode, of_mode = min(choices, key=lambda each: each[:2])
    return mode, table_bytes(of_mode.astype(np.int64)).ravel()


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
