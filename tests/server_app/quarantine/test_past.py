"""Images are known again in other light, scale and noise; where they do not differ, nothing is said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server_app.quarantine.evidence import Evidence, summarise
from server_app.quarantine.past import num_images, recognise
from server_app.quarantine.views import Views

NUM, CHANNELS, SIZE = 40, 4, 12


def maps(seed: int, num: int = NUM) -> NDArray[np.float32]:
    """Smooth features of as many images: blobs of three pixels."""
    coarse = np.random.default_rng(seed).normal(size=(num, CHANNELS, SIZE // 3, SIZE // 3))
    return coarse.repeat(3, axis=2).repeat(3, axis=3).astype(np.float32)


def evidence(features: NDArray[np.float32], labels: NDArray[np.int64] | None = None) -> Evidence:
    num = len(features)
    labels = np.arange(num) % 2 if labels is None else labels
    ids, logits = np.arange(num, dtype=np.int64) * 5, np.zeros((num, 3), np.float32)
    return summarise(ids, features, logits, labels.astype(np.int64), Views.plain(num, SIZE))


@settings(max_examples=30, derandomize=True)
@given(
    seed=st.integers(0, 999),
    scale=st.floats(0.1, 30),
    offset=st.floats(-5, 5),
    noise=st.floats(0, 1.5),
    drift=st.floats(0, 0.5),
)
def test_images_are_known_again(seed: int, scale: float, offset: float, noise: float, drift: float) -> None:
    rng, before = np.random.default_rng([seed, 1]), maps(seed)
    mixed = np.einsum(
        "cd,ndhw->nchw", np.eye(CHANNELS) + drift * rng.normal(size=(CHANNELS,) * 2) / 2, before
    )
    now = (scale * (mixed + noise * rng.normal(size=before.shape)) + offset).astype(np.float32)
    found = recognise(evidence(now), evidence(before))
    assert found.ranks.mean() > 0.9
    assert [label for label, _, _ in found.parts()] == [None, 0, 1]


def test_other_images_are_known_no_better_than_by_chance() -> None:
    """Forty samples scatter around a half: hardly ever is a limit of 0.65 not enough."""
    labels = (np.arange(NUM) >= NUM // 2).astype(np.int64)
    replayed, others, moved, kept, together = [], [], [], [], []
    for seed in range(60):
        before = maps(seed)
        rolled = np.roll(before, 1 + seed % (NUM - 1), axis=0)
        replayed.append(recognise(evidence(rolled), evidence(before)).ranks.mean())
        others.append(recognise(evidence(maps(seed + 1000)), evidence(before)).ranks.mean())
        # One class alone.
        half = before.copy()
        half[labels == 1] = np.roll(half[labels == 1], 1, axis=0)
        again = recognise(evidence(half, labels), evidence(before, labels))
        parts = {label: rank for label, rank, _ in again.parts()}
        moved.append(parts[1])
        kept.append(parts[0])
        together.append(parts[None])
    for ranks in (replayed, others, moved):
        assert abs(np.mean(ranks) - 0.5) < 0.05
        assert np.mean(np.asarray(ranks) < 0.65) > 0.9
    # The other class is known all the same, and all samples together hide the moved one.
    assert min(kept) > 0.9 and np.mean(together) > 0.7


def test_where_images_do_not_differ_there_is_nothing_to_compare() -> None:
    scene = maps(0, 1).repeat(NUM, axis=0)
    noise = np.random.default_rng(1).normal(0, 0.1, scene.shape).astype(np.float32)
    for features in (scene, scene + noise, scene + 20 * noise, np.ones_like(scene)):
        assert list(recognise(evidence(features), evidence(features)).parts()) == []
    few = maps(0, 10)
    assert list(recognise(evidence(few), evidence(few)).parts()) == []


def test_only_views_of_the_same_side_and_of_the_same_samples_are_compared() -> None:
    whole = evidence(maps(3))
    mirrored = np.asarray([1] * 5 + [0] * 35, np.uint8)
    assert len(recognise(dataclasses.replace(whole, mirrored=mirrored), whole).ranks) == 35
    later = dataclasses.replace(whole, sample_ids=whole.sample_ids + 50)
    assert len(recognise(later, whole).ranks) == NUM - 10
    empty = dataclasses.replace(whole, patches=whole.patches[:, :, :0, :0])
    assert len(recognise(empty, empty).ranks) == 0


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_an_image_that_is_shown_often_counts_once(noise: float) -> None:
    images = maps(5, 4).repeat(10, axis=0)
    images += noise * np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    assert num_images(evidence(images, np.zeros(NUM, np.int64)), 0) == pytest.approx(4 / NUM)
    assert num_images(evidence(maps(6), np.zeros(NUM, np.int64)), 0) == 1.0
    assert num_images(evidence(np.ones_like(images), np.zeros(NUM, np.int64)), 0) == 1 / NUM
