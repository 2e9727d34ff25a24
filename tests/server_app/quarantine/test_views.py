"""Crops and flips are undone exactly, whatever they are, and padding is where the server expects it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import augmented_view
from gkt_core.networks import EDGE_LAYOUTS, reach_of
from gkt_core.nn import build_edge_network
from gkt_core.rounds.client_part import client_seed
from server_app.quarantine.views import PATCH, Views


def drawn(
    images: NDArray[np.uint8], config: RunConfig, client_id: str, round_num: int
) -> tuple[NDArray[np.float32], Views]:
    """What a device shows its network in a round, and what the server knows of it."""
    num, size = len(images), images.shape[1]
    ids = np.arange(num, dtype=np.int64) * 7
    shown = augmented_view(
        images,
        ids,
        seed=client_seed(config.seed, client_id),
        round_num=round_num,
        crop_padding=config.crop_padding,
        horizontal_flip=config.horizontal_flip,
    )
    return shown, Views.of_round(config, client_id, round_num, ids, size)


@settings(max_examples=40)
@given(
    size=st.integers(4, 24),
    padding=st.integers(0, 12),
    flip=st.booleans(),
    seed=st.integers(0, 2**40),
    round_num=st.integers(1, 10_000),
)
def test_two_views_of_an_image_have_the_same_patch(
    size: int, padding: int, flip: bool, seed: int, round_num: int
) -> None:
    config = RunConfig(crop_padding=padding, horizontal_flip=flip, seed=seed)
    images = np.random.default_rng(seed).integers(0, 256, (9, size, size, 3)).astype(np.uint8)
    plain = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    patches = []
    for number in (round_num, round_num + 1):
        shown, views = drawn(images, config, "a", number)
        patches.append(views.patches(shown))
    np.testing.assert_array_equal(patches[0], patches[1])
    # It is the middle of the image, and empty where no part is in every view.
    length = patches[0].shape[2]
    assert length == min(PATCH, max(0, size - 2 * (padding + (1 if padding else 0))))
    begin = (size - length) // 2
    np.testing.assert_array_equal(patches[0], plain[:, :, begin : begin + length, begin : begin + length])


@settings(max_examples=25)
@given(size=st.integers(8, 24), padding=st.integers(2, 6), flip=st.booleans(), seed=st.integers(0, 999))
def test_padding_is_black_where_the_server_expects_it_and_nowhere_else(
    size: int, padding: int, flip: bool, seed: int
) -> None:
    config = RunConfig(crop_padding=padding, horizontal_flip=flip, seed=seed)
    # Blocks of pixels: neighbours go together.
    rng = np.random.default_rng(seed)
    coarse = rng.integers(50, 256, (128, size // 2 + 1, size // 2 + 1, 3)).astype(np.uint8)
    images = coarse.repeat(2, axis=1).repeat(2, axis=2)[:, :size, :size]
    shown, views = drawn(images, config, "a", 3)
    black, image, num = views.padding_trace(shown)
    assert black == pytest.approx(0.0, abs=1e-9)
    assert image > 0.05 and num > 16
    # Images that were cut for another device are not.
    other, _ = drawn(images, config, "b", 3)
    black, image, _ = views.padding_trace(other)
    assert black > 0.5 * image


def test_features_of_half_the_size_are_turned_back_to_the_nearest_pixel() -> None:
    views = Views(np.asarray([2, -4]), np.asarray([0, 4]), np.asarray([False, True]), 4, 32)
    scene = np.random.default_rng(0).random((1, 3, 16, 16), np.float32).repeat(2, axis=0)
    shown = np.zeros_like(scene)
    shown[0, :, :-1] = scene[0, :, 1:]
    # Two rows above the image, two columns cut off at the left, then mirrored.
    shown[1, :, 2:, :-2] = scene[1, :, :-2, 2:]
    shown[1] = shown[1, :, :, ::-1]
    first, second = views.patches(shown)
    np.testing.assert_array_equal(first, second)


def test_views_change_with_crop_or_flip() -> None:
    views = Views(
        np.asarray([0, 0, 0, 1]), np.asarray([1, 1, 1, 1]), np.asarray([False, False, True, True]), 1, 8
    )
    assert views.change().tolist() == [False, True, True]


@pytest.mark.parametrize("name", EDGE_LAYOUTS)
def test_deep_in_the_padding_no_network_sees_the_image(name: str) -> None:
    """Where a narrow tap or a strided stem sees farther, fewer places count than of a plain stem."""
    size, config = 64, RunConfig(crop_padding=16, seed=1)
    rng = np.random.default_rng(0)
    network = build_edge_network(name, 3).eval()
    outputs = []
    for _ in range(2):
        coarse = rng.integers(50, 256, (48, size // 4, size // 4, 3)).astype(np.uint8)
        shown, views = drawn(coarse.repeat(4, axis=1).repeat(4, axis=2), config, "a", 3)
        with torch.no_grad():
            outputs.append(network(torch.from_numpy(shown))[0].numpy())
    views = dataclasses.replace(views, reach=reach_of(name))
    # Two images cut alike: what is the same of both is the padding's alone.
    black, shown_covariance, num = views.padding_trace(outputs[0] - outputs[1])
    assert num > 16 and shown_covariance > 0
    assert black == pytest.approx(0.0, abs=1e-9)
    as_of_a_stem = dataclasses.replace(views, reach=1).padding_trace(outputs[0] - outputs[1])[0]
    # By two features of which both see some of it.
    assert (abs(as_of_a_stem) > 1e-6) == (reach_of(name) > 1)
