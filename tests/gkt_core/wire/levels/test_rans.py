"""The coder of symbols: exact for any of them, near what they tell, and it notices what was changed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gkt_core.errors import ShardError
from gkt_core.wire.levels.rans import LOW, TOTAL, WIDTH, Coded, Decoder, encode
from gkt_core.wire.levels.tables import read_table, table_bytes


def _content(
    seed: int, contexts: int, steps: int, lanes: int, spread: float = 0.3
) -> tuple[NDArray[np.intp], NDArray[np.uint8], NDArray[np.uint16]]:
    """Contexts and symbols ``[steps, lanes]``, and their frequencies, as a shard's table gives them."""
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(WIDTH, spread), contexts).cumsum(axis=1)
    context = rng.integers(0, contexts, (steps, lanes))
    drawn = rng.random((steps, lanes, 1)) > chances[context]
    symbols = drawn.sum(axis=-1).clip(0, WIDTH - 1).astype(np.uint8)
    counts = np.bincount((context * WIDTH + symbols).ravel(), minlength=contexts * WIDTH)
    table = table_bytes(counts.reshape(contexts, WIDTH))
    return context.astype(np.intp), symbols, read_table(table.ravel(), contexts)


def _decoded(
    coded: Coded, context: NDArray[np.intp], frequencies: NDArray[np.uint16]
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    decoder, symbols = Decoder(coded, frequencies), np.empty(context.shape, np.uint8)
    for row, out in zip(context, symbols, strict=True):
        decoder.step(row, out)
    return symbols, decoder.finish()


def _encoded(
    context: NDArray[np.intp], symbols: NDArray[np.uint8], frequencies: NDArray[np.uint16], seed: int = 0
) -> tuple[Coded, NDArray[np.uint16]]:
    begins = np.random.default_rng(seed).integers(0, LOW, context.shape[1], np.uint16)
    return encode((context * WIDTH + symbols).astype(np.uint16), frequencies, begins), begins


@given(
    seed=st.integers(0, 2**32),
    contexts=st.integers(1, 80),
    steps=st.integers(1, 60),
    lanes=st.integers(1, 40),
    spread=st.sampled_from([0.01, 0.3, 10.0]),
)
def test_what_is_coded_comes_out(seed: int, contexts: int, steps: int, lanes: int, spread: float) -> None:
    context, symbols, frequencies = _content(seed, contexts, steps, lanes, spread)
    coded, begins = _encoded(context, symbols, frequencies, seed)
    out, back = _decoded(coded, context, frequencies)
    assert np.array_equal(out, symbols)
    assert np.array_equal(back, begins)


def test_the_rarest_symbol_and_the_only_one_are_exact() -> None:
    frequencies = np.zeros((2, WIDTH), np.uint16)
    frequencies[0, 3] = TOTAL
    frequencies[1] = 1
    frequencies[1, 0] = TOTAL - WIDTH + 1
    context = np.array([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]] * 50, np.intp)
    symbols = np.where(context == 0, 3, np.arange(context.size).reshape(context.shape) % WIDTH)
    coded, begins = _encoded(context, symbols.astype(np.uint8), frequencies)
    out, back = _decoded(coded, context, frequencies)
    assert np.array_equal(out, symbols)
    assert np.array_equal(back, begins)


def test_a_lane_costs_little_more_than_its_symbols_tell() -> None:
    context, symbols, frequencies = _content(1, 20, 1024, 64)
    coded, begins = _encoded(context, symbols, frequencies)
    share = frequencies[context, symbols] / TOTAL
    told = -np.log2(share).sum() / 8
    took = coded.states.nbytes + coded.words.nbytes - begins.nbytes
    assert told < took < told * 1.005 + 1.5 * 64


def test_a_bit_that_was_changed_is_noticed_or_changes_what_comes_out() -> None:
    context, symbols, frequencies = _content(2, 10, 100, 8)
    coded, begins = _encoded(context, symbols, frequencies)
    noticed = 0
    for place in range(coded.words.size):
        words = coded.words.copy()
        words[place] ^= 1
        try:
            out, back = _decoded(dataclasses.replace(coded, words=words), context, frequencies)
            assert not (np.array_equal(out, symbols) and np.array_equal(back, begins))
        except ShardError:
            noticed += 1
    assert noticed > 0.8 * coded.words.size


@pytest.mark.parametrize(("change", "match"), [(-1, "cut short"), (1, "left over")])
def test_words_that_are_missing_or_left_over(change: int, match: str) -> None:
    context, symbols, frequencies = _content(3, 10, 100, 8)
    coded, _ = _encoded(context, symbols, frequencies)
    words = coded.words[:-1] if change < 0 else np.append(coded.words, np.uint16(0))
    with pytest.raises(ShardError, match=match):
        _decoded(dataclasses.replace(coded, words=words), context, frequencies)


def test_a_state_that_no_coder_leaves() -> None:
    context, symbols, frequencies = _content(3, 10, 100, 8)
    coded, _ = _encoded(context, symbols, frequencies)
    states = coded.states.copy()
    states[5] = LOW - 1
    with pytest.raises(ShardError, match="no coder leaves"):
        _decoded(dataclasses.replace(coded, states=states), context, frequencies)


@given(seed=st.integers(0, 2**32), largest=st.sampled_from([1, 10, 10**4, 10**9]))
def test_tables_say_frequencies_within_some_percent(seed: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, largest + 1, (7, WIDTH)) * rng.integers(0, 2, (7, WIDTH))
    frequencies = read_table(table_bytes(counts).ravel(), 7)
    assert (frequencies.sum(axis=1) == TOTAL).all()
    totals = counts.sum(axis=1, keepdims=True)
    some = totals[:, 0] > 0
    assert np.array_equal(frequencies[some] > 0, counts[some] > 0)
    shares = (counts / np.maximum(totals, 1))[some]
    assert (np.abs(frequencies[some] / TOTAL - shares) <= 0.1 * shares + 17 / TOTAL).all()


@pytest.mark.parametrize(("size", "value", "match"), [(31, 0, "31 frequencies"), (32, 98, "holds 98")])
def test_tables_that_are_none(size: int, value: int, match: str) -> None:
    with pytest.raises(ShardError, match=match):
        read_table(np.full(size, value, np.uint8), 2)
