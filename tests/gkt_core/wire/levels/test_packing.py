"""Levels of few bits in bytes: what goes in comes out, and where each bit lies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkt_core.wire.levels.packing import group_of, pack, packed_symbols, symbols_of, unpack

BITS = (1, 2, 3, 4)


@pytest.mark.parametrize("bits", BITS)
@given(data=st.data())
def test_what_is_packed_comes_out(bits: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    in_group, num_bytes = group_of(bits)
    shape = (data.draw(st.integers(1, 3)), in_group * data.draw(st.integers(1, 5)))
    levels = rng.integers(0, 1 << bits, shape).astype(np.uint8)
    packed = pack(levels, bits)
    assert packed.shape == (shape[0], shape[1] // in_group * num_bytes)
    assert np.array_equal(unpack(packed, bits), levels)
    flat = packed.reshape(-1)
    symbols = symbols_of(flat, bits)
    assert symbols.max() < 16
    assert np.array_equal(packed_symbols(symbols, bits), flat)


@pytest.mark.parametrize(
    ("bits", "levels", "packed"),
    [
        (1, [1, 0, 1, 1, 0, 0, 0, 1], [0b10001101]),
        (2, [1, 0, 3, 2], [0b10110001]),
        (3, [1, 2, 3, 4, 5, 6, 7, 0], [0b11010001, 0b01011000, 0b00011111]),
        (4, [0, 15, 3, 1], [0xF0, 0x13]),
    ],
)
def test_the_first_level_lies_in_the_lowest_bits(bits: int, levels: list[int], packed: list[int]) -> None:
    assert pack(np.array(levels, np.uint8), bits).tolist() == packed


def test_a_symbol_is_half_a_byte_and_of_three_bits_a_level() -> None:
    assert symbols_of(np.array([0x21, 0x43], np.uint8), 1).tolist() == [1, 2, 3, 4]
    assert symbols_of(np.array([0b11010001, 0b01011000, 0b00011111], np.uint8), 3).tolist() == [
        *range(1, 8),
        0,
    ]
