"""Levels of features as words: exact for any shape, smaller than Zstandard makes them, and by known lanes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkt_core.errors import ShardError
from gkt_core.wire.compression import compress
from gkt_core.wire.levels.coder import Layout, decode_levels, encode_levels
from gkt_core.wire.levels.contexts import NUM_MODES, context_table, num_contexts
from gkt_core.wire.levels.packing import symbols_of
from tests.gkt_core.wire.levels.level_content import packed_levels, smooth_levels

BITS = (1, 2, 3, 4)


def _layout(bits: int, shape: tuple[int, int, int]) -> Layout:
    layout = Layout.of(bits, shape)
    assert layout is not None
    return layout


@pytest.mark.parametrize("bits", BITS)
@given(data=st.data())
@settings(max_examples=30)
def test_levels_of_any_shape_come_out(bits: int, data: st.DataObject) -> None:
    sizes = st.tuples(st.integers(1, 8), st.integers(1, 12), st.sampled_from([4, 8, 16, 48]))
    shape = data.draw(sizes.filter(lambda each: Layout.of(bits, each) is not None))
    num, seed = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 2**32))
    layout = _layout(bits, shape)
    if data.draw(st.booleans()):
        packed = packed_levels(bits, shape, num, seed)
    else:
        packed = np.random.default_rng(seed).integers(0, 256, num * layout.symbols // 2, np.uint8)
        if bits == 3:
            packed = packed_levels(bits, shape, num, seed)
    symbols = symbols_of(packed, bits)
    begins = np.arange(num * layout.lanes).astype(np.uint16)
    out, back = decode_levels(encode_levels(symbols, layout, begins), layout)
    assert np.array_equal(out, symbols)
    assert np.array_equal(back, begins)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(16, 32, 32), (16, 8, 8)])
def test_levels_take_less_than_zstandard_makes_of_them(bits: int, shape: tuple[int, int, int]) -> None:
    packed, layout = packed_levels(bits, shape, 32), _layout(bits, shape)
    coded = encode_levels(symbols_of(packed, bits), layout, np.zeros(32 * layout.lanes, np.uint16))
    took = coded.coded.words.nbytes + 2 * coded.coded.states.size + len(compress(coded.table.tobytes()))
    assert took < 0.9 * len(compress(packed.tobytes()))


@pytest.mark.parametrize(
    ("bits", "shape", "lanes", "steps"),
    [
        (4, (16, 32, 32), 16, 1024),
        (2, (16, 32, 32), 16, 512),
        (1, (16, 32, 32), 16, 256),
        (4, (16, 16, 16), 16, 256),
        (1, (16, 16, 16), 8, 128),
        (4, (16, 8, 8), 8, 128),
        (2, (8, 8, 8), 2, 128),
        (1, (8, 8, 8), 1, 128),
        (4, (16, 224, 224), 896, 896),
        (4, (3, 2, 2), 1, 12),
    ],
)
def test_lanes_follow_from_the_shape(bits: int, shape: tuple[int, int, int], lanes: int, steps: int) -> None:
    layout = _layout(bits, shape)
    assert (layout.lanes, layout.steps) == (lanes, steps)


@pytest.mark.parametrize(("bits", "shape"), [(1, (2, 8, 6)), (2, (2, 8, 3)), (3, (1, 2, 2)), (4, (1, 3, 3))])
def test_shapes_whose_symbols_would_reach_over_an_end_are_not_coded(
    bits: int, shape: tuple[int, int, int]
) -> None:
    assert Layout.of(bits, shape) is None


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("mode", range(NUM_MODES))
def test_every_way_of_contexts_is_one(bits: int, mode: int) -> None:
    contexts = context_table(bits, mode)
    assert contexts.shape == (4096,)
    assert num_contexts(bits, mode) <= 80
    assert set(contexts.tolist()) == set(range(num_contexts(bits, mode)))


def test_the_guess_is_the_neighbour_that_the_corner_points_to() -> None:
    guesses = context_table(4, 1)
    place = {
        (left, above, corner): left * 256 + above * 16 + corner
        for left, above, corner in ((5, 5, 5), (9, 2, 9), (2, 9, 9), (9, 2, 2), (6, 8, 7), (0, 15, 0))
    }
    assert {each: int(guesses[number]) for each, number in place.items()} == {
        (5, 5, 5): 5,
        (9, 2, 9): 2,
        (2, 9, 9): 2,
        (9, 2, 2): 9,
        (6, 8, 7): 7,
        (0, 15, 0): 15,
    }


def test_few_samples_get_few_tables_and_many_get_more() -> None:
    shape, layout = (16, 32, 32), _layout(4, (16, 32, 32))
    modes = []
    for num in (1, 16):
        symbols = symbols_of(packed_levels(4, shape, num), 4)
        modes.append(encode_levels(symbols, layout, np.zeros(num * layout.lanes, np.uint16)).mode)
    noise = np.random.default_rng(0).integers(0, 256, 16 * 8 * 8 // 2, np.uint8)
    layout = _layout(4, (16, 8, 8))
    modes.append(encode_levels(symbols_of(noise, 4), layout, np.zeros(layout.lanes, np.uint16)).mode)
    assert modes[0] <= modes[1]
    assert modes[2] == 0


def test_a_way_of_contexts_that_is_none() -> None:
    layout = _layout(4, (2, 4, 4))
    coded = encode_levels(smooth_levels(4, (2, 4, 4), 1).reshape(-1), layout, np.zeros(1, np.uint16))
    with pytest.raises(ShardError, match="the way 4, expected 0 to 3"):
        decode_levels(dataclasses.replace(coded, mode=4), layout)
