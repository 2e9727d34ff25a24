"""Views are a pure function of (seed, sample_id, round_num), and epochs an order that every machine knows."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkt_core.data.augment import augmented_view, batch_order, batches, to_float_nchw, view_hash

MASK = 2**64 - 1


def images(num: int = 6, size: int = 8, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (num, size, size, 3)).astype(np.uint8)


def view(pictures: Any, sample_ids: Any, **changes: Any) -> Any:
    settings = {"seed": 5, "round_num": 2, "crop_padding": 4, "horizontal_flip": True, **changes}
    return augmented_view(pictures, np.asarray(sample_ids, np.int64), **settings)


# --- the reference: one sample at a time, in whole numbers of any size


def reference_hash(seed: int, sample_id: int, round_num: int) -> Any:
    def mix(state: Any) -> Any:
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        return state ^ (state >> 31)

    state = mix(((seed & MASK) + 0x9E3779B97F4A7C15) & MASK)
    state = mix(((state ^ (sample_id & MASK)) + 0x9E3779B97F4A7C15) & MASK)
    return mix(((state ^ round_num) + 0x9E3779B97F4A7C15) & MASK)


def reference_view(
    image: Any, sample_id: int, *, seed: int, round_num: int, crop_padding: int, horizontal_flip: bool
) -> Any:
    bits = reference_hash(seed, sample_id, round_num)
    size = image.shape[0]
    top = (bits & 0xFFFFFF) % (2 * crop_padding + 1) - crop_padding
    left = ((bits >> 24) & 0xFFFFFF) % (2 * crop_padding + 1) - crop_padding
    drawn = np.zeros((3, size, size), np.float32)
    for row in range(size):
        for column in range(size):
            from_row, from_column = row + top, column + left
            if 0 <= from_row < size and 0 <= from_column < size:
                place = size - 1 - column if horizontal_flip and bits >> 63 else column
                drawn[:, row, place] = image[from_row, from_column].astype(np.float32) / np.float32(255)
    return drawn


IDS = st.integers(-(2**63), 2**63 - 1)
SEEDS = st.integers(0, 2**63 - 1)
ROUNDS = st.integers(0, 2**40)


@given(SEEDS, st.lists(IDS, min_size=1, max_size=8), ROUNDS)
def test_the_hash_is_splitmix64_of_the_three_numbers(
    seed: int, sample_ids: list[int], round_num: int
) -> None:
    found = view_hash(seed, np.array(sample_ids, np.int64), round_num)
    assert found.dtype == np.uint64
    assert found.tolist() == [reference_hash(seed, sample_id, round_num) for sample_id in sample_ids]


@given(
    seed=SEEDS,
    sample_ids=st.lists(IDS, min_size=1, max_size=3),
    round_num=ROUNDS,
    crop_padding=st.integers(0, 10),
    horizontal_flip=st.booleans(),
)
@settings(max_examples=60)
def test_a_view_equals_the_slow_reference(
    seed: int, sample_ids: list[int], round_num: int, crop_padding: int, horizontal_flip: bool
) -> None:
    names: dict[str, Any] = {
        "seed": seed,
        "round_num": round_num,
        "crop_padding": crop_padding,
        "horizontal_flip": horizontal_flip,
    }
    pictures = images(len(sample_ids))
    found = augmented_view(pictures, np.array(sample_ids, np.int64), **names)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    for number, sample_id in enumerate(sample_ids):
        assert np.array_equal(found[number], reference_view(pictures[number], sample_id, **names))


def test_known_hashes_and_a_known_view() -> None:
    # Committed, so that another language, another release or another numpy cannot drift unseen.
    assert [f"{value:016x}" for value in view_hash(0, np.array([0, 1, 2**40]), 1).tolist()] == [
        "2f32a78496c67c60",
        "465391958fc61f13",
        "1aed3232c50ecd3b",
    ]
    pictures = (np.arange(4 * 8 * 8 * 3) * 37 % 256).astype(np.uint8).reshape(4, 8, 8, 3)
    drawn = view(pictures, [0, 1, 2, 3])
    assert (
        hashlib.sha256(drawn.astype("<f4").tobytes()).hexdigest()
        == "4e11a4b9dedfaffe57816d511e20e60fc791352b34a8f0ded543f4a168b44668"
    )
    order = batch_order(10, seed=7, round_num=3, epoch=2)
    assert order.tolist() == [3, 9, 2, 6, 5, 7, 4, 1, 0, 8]


# --- a pure function of the three numbers


@given(st.permutations(range(6)), st.integers(0, 6))
def test_order_and_subset_of_samples_do_not_change_a_view(order: Any, num: int) -> None:
    pictures, sample_ids = images(), np.array([3, 1, 41, 7, 0, 2**50])
    rows = np.array(order[:num], np.intp)
    assert np.array_equal(view(pictures[rows], sample_ids[rows]), view(pictures, sample_ids)[rows])


def test_one_sample_alone_has_the_same_view() -> None:
    pictures, sample_ids = images(), np.arange(6)
    whole = view(pictures, sample_ids)
    for row in range(6):
        assert np.array_equal(view(pictures[row : row + 1], sample_ids[row : row + 1])[0], whole[row])


def test_another_round_another_seed_and_another_sample_have_other_views() -> None:
    pictures, sample_ids = images(20), np.arange(20)
    drawn = view(pictures, sample_ids)
    assert np.array_equal(drawn, view(pictures, sample_ids))
    for other in (
        view(pictures, sample_ids, round_num=3),
        view(pictures, sample_ids, seed=6),
        view(pictures, sample_ids + 20),
    ):
        same = [np.array_equal(drawn[row], other[row]) for row in range(20)]
        assert sum(same) <= 2


def test_seed_sample_and_round_are_not_interchangeable() -> None:
    numbers = np.arange(50)
    assert len(np.unique([view_hash(s, numbers, r) for s in range(6) for r in range(6)])) == 36 * 50


def test_drawing_leaves_the_images_alone() -> None:
    pictures = images()
    before = pictures.copy()
    view(pictures, np.arange(6))
    assert np.array_equal(pictures, before)


# --- crop and flip


def test_no_padding_and_no_flip_is_the_image_itself() -> None:
    drawn = view(images(), np.arange(6), crop_padding=0, horizontal_flip=False)
    assert np.array_equal(drawn, to_float_nchw(images()))
    assert np.array_equal(drawn, images().transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))


def test_values_are_scaled_to_0_to_1_and_padded_with_black() -> None:
    white = np.full((64, 8, 8, 3), 255, np.uint8)
    assert set(np.unique(view(white, np.arange(64)))) == {0.0, 1.0}
    assert set(np.unique(view(white, np.arange(64), crop_padding=0))) == {1.0}


def test_without_flipping_the_columns_keep_their_order() -> None:
    ramp = np.broadcast_to(np.arange(1, 9, dtype=np.uint8)[None, None, :, None], (200, 8, 8, 3))
    steps = np.diff(view(ramp, np.arange(200), horizontal_flip=False, crop_padding=0), axis=3)
    assert (steps > 0).all()
    steps = np.diff(view(ramp, np.arange(200), crop_padding=0), axis=3)
    flipped = (steps < 0).all(axis=(1, 2, 3))
    assert (flipped | (steps > 0).all(axis=(1, 2, 3))).all()
    assert 70 <= flipped.sum() <= 130


def test_offsets_and_flips_are_uniform_and_independent() -> None:
    # One white pixel in the middle shows where each view was cut and whether it was mirrored.
    num, padding, size = 40_500, 4, 11
    bits = view_hash(9, np.arange(num), 1)
    dot = np.zeros((1, size, size, 3), np.uint8)
    dot[0, 5, 5] = 255
    drawn = augmented_view(
        np.broadcast_to(dot, (num, size, size, 3)),
        np.arange(num),
        seed=9,
        round_num=1,
        crop_padding=padding,
        horizontal_flip=True,
    )[:, 0]
    rows, columns = np.divmod(drawn.reshape(num, -1).argmax(axis=1), size)
    flips = (bits >> np.uint64(63)).astype(int)
    cells = np.bincount((rows - 1) * 9 + columns - 1, minlength=81)
    assert len(cells) == 81
    # Chi-square with 80 (and 161) degrees of freedom: chance exceeds these for one seed in 100,000.
    expected = num / 81
    assert ((cells - expected) ** 2 / expected).sum() < 148
    both = np.bincount(((rows - 1) * 9 + columns - 1) * 2 + flips, minlength=162)
    assert ((both - expected / 2) ** 2 / (expected / 2)).sum() < 256


# --- the order of an epoch


@given(st.integers(0, 300), SEEDS, st.integers(1, 1000), st.integers(1, 100))
def test_an_epochs_order_is_a_permutation(num: int, seed: int, round_num: int, epoch: int) -> None:
    order = batch_order(num, seed=seed, round_num=round_num, epoch=epoch)
    assert order.dtype == np.intp
    assert sorted(order.tolist()) == list(range(num))
    keys = [reference_hash(seed ^ 0x6F72646572, n, round_num * 65536 + epoch) for n in order.tolist()]
    assert keys == sorted(keys)


def test_every_epoch_round_and_seed_has_its_own_order() -> None:
    orders = {
        tuple(batch_order(50, seed=seed, round_num=round_num, epoch=epoch).tolist())
        for seed in range(4)
        for round_num in range(1, 6)
        for epoch in range(1, 6)
    }
    assert len(orders) == 4 * 5 * 5


def test_an_epochs_order_is_unlike_the_views_hash() -> None:
    hashes = view_hash(3, np.arange(100), 65537)
    assert batch_order(100, seed=3, round_num=1, epoch=1).tolist() != np.argsort(hashes).tolist()


@given(st.integers(2, 300), st.integers(2, 70))
def test_batches_are_the_order_cut_and_none_has_one_sample(num: int, batch_size: int) -> None:
    order = batch_order(num, seed=0, round_num=1, epoch=1)
    cut = batches(order, batch_size)
    assert np.array_equal(np.concatenate(cut), order)
    sizes = [len(batch) for batch in cut]
    assert min(sizes) >= 2
    assert max(sizes) <= batch_size + 1
    assert all(size == batch_size for size in sizes[:-1])


@pytest.mark.parametrize(
    ("num", "sizes"),
    [(1, [1]), (2, [2]), (64, [64]), (65, [65]), (66, [64, 2]), (128, [64, 64]), (129, [64, 65])],
)
def test_a_last_sample_joins_the_batch_before_it(num: int, sizes: Any) -> None:
    assert [len(batch) for batch in batches(np.arange(num), 64)] == sizes
