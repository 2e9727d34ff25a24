"""Views of features are those of images where they can be, and the same whoever draws them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from gkt_core.algorithms.server_round import server_update
from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import to_float_nchw
from gkt_core.errors import ConfigError
from gkt_core.nn import EdgeNetwork, build_edge_network
from gkt_core.rounds.feature_source import ShardSource
from gkt_core.rounds.feature_views import FeatureViews, inexact_views, offsets, shifted_views
from gkt_core.wire.codec import encode
from gkt_core.wire.shards import FeatureShard

SIZE, CHANNELS = 12, 16
RNG = np.random.default_rng(3)


def source(num: int, *client_ids: str) -> ShardSource:
    """Random features of some devices, each with the same sample ids."""

    def shard(seed: int) -> FeatureShard:
        rng = np.random.default_rng(seed)
        features = rng.random((num, CHANNELS, SIZE, SIZE), np.float32)
        logits, labels = rng.random((num, 3), np.float32), rng.integers(0, 3, num)
        outside = rng.random(CHANNELS, np.float32)
        ids = np.arange(num, dtype=np.int64)
        return FeatureShard(ids, encode(features, "fp32"), logits, labels, features.shape[1:], outside)

    return ShardSource((client_id, shard(place)) for place, client_id in enumerate(client_ids))


def drawn(views: FeatureViews, samples: ShardSource, rows: list[int], epoch: int = 1) -> NDArray[np.float32]:
    chosen = np.asarray(rows, np.intp)
    return views.draw(samples.gather(chosen), samples, chosen, 4, epoch)


ALL = FeatureViews(seed=1, padding=2, flip=True, is_tied=True)
SAMPLES = source(9, "a", "b")


@given(st.permutations(range(18)), st.integers(1, 18))
def test_a_view_depends_on_nothing_but_its_name(order: list[int], num: int) -> None:
    whole = drawn(ALL, SAMPLES, list(range(18)))
    assert np.array_equal(drawn(ALL, SAMPLES, order[:num]), whole[order[:num]])


def test_epochs_rounds_devices_and_seeds_have_views_of_their_own() -> None:
    rows = list(range(9))
    one = drawn(ALL, SAMPLES, rows)
    assert not np.array_equal(one, drawn(ALL, SAMPLES, rows, epoch=2))
    assert not np.array_equal(one, drawn(dataclasses.replace(ALL, seed=2), SAMPLES, rows))
    mine, other = (ALL._bits(SAMPLES, np.arange(first, first + 9), 4, 1) for first in (0, 9))
    assert len(np.unique([mine, other])) == 18


def test_offsets_are_even_and_within_the_padding() -> None:
    many = source(3000, "a")
    bits = ALL._bits(many, np.arange(3000), 1, 1)
    top, left, flip = offsets(bits, 2)
    for values in (top, left):
        assert np.bincount(values, minlength=5).tolist() == pytest.approx([600] * 5, abs=90)
    assert flip.mean() == pytest.approx(0.5, abs=0.04)
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.06


def test_none_leaves_features_as_they_are() -> None:
    views = FeatureViews.of_run(RunConfig(), "resnet8-tied")
    assert np.array_equal(drawn(views, SAMPLES, [3, 1]), SAMPLES.gather(np.array([3, 1])).features)
    only_flip = FeatureViews.of_run(RunConfig(feature_augmentation="flip"), "resnet8")
    assert only_flip == FeatureViews(0, 0, flip=True, is_tied=False)
    assert FeatureViews.of_run(RunConfig(feature_augmentation="crop"), "resnet8-tied").padding == 4
    with pytest.raises(ConfigError, match="feature_augmentation is 'turn'"):
        RunConfig(feature_augmentation="turn")


def extractor(name: str) -> EdgeNetwork:
    """An edge network whose running statistics have seen images."""
    network = build_edge_network(name, 3, seed=5)
    network.train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.rand(16, 3, SIZE, SIZE))
    return network.eval()


def features_of(network: EdgeNetwork, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.asarray(network(torch.from_numpy(to_float_nchw(images)))[0].numpy())


def test_augmented_features_of_a_narrow_tap_are_said_to_be_those_of_no_image() -> None:
    both = RunConfig(feature_augmentation="crop+flip")
    said = inexact_views(both, "resnet8-16x8x8")
    assert "(crop+flip)" in said and "by 4 pixels" in said and "sees 4 pixels around" in said
    assert inexact_views(RunConfig(), "resnet8-16x8x8") == ""
    assert {inexact_views(both, name) for name in ("resnet8", "resnet8-tied", "resnet8-stride2", "own")} == {
        ""
    }
    # A crop of the image by a whole stride is not the crop of the features, in the middle of the map neither.
    network, images = extractor("resnet8-16x8x8"), RNG.integers(0, 256, (4, 32, 32, 3), np.uint8)
    moved = np.zeros_like(images)
    moved[:, 4:] = images[:, :-4]
    features, of_moved = features_of(network, images), features_of(network, moved)
    assert np.abs(features[:, :, 1:6] - of_moved[:, :, 2:7]).max() < 1e-4
    assert np.abs(features[:, :, 0] - of_moved[:, :, 1]).max() > 0.01


def test_flipped_features_of_a_tied_stem_are_those_of_the_flipped_image() -> None:
    network, images = extractor("resnet8-tied"), RNG.integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)
    features, none = features_of(network, images), np.zeros((6, CHANNELS), np.float32)
    zero, every = np.zeros(6, np.intp), np.ones(6, bool)
    flipped = shifted_views(features, none, 0, zero, zero, every, is_tied=True)
    assert np.array_equal(flipped, features_of(network, images[:, :, ::-1]))
    # The same of a stem that is not tied is another thing altogether.
    plain = extractor("resnet8")
    flipped = shifted_views(features_of(plain, images), none, 0, zero, zero, every, is_tied=False)
    expected = features_of(plain, images[:, :, ::-1])
    assert np.linalg.norm(flipped - expected) > 0.3 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["resnet8", "resnet8-tied"])
def test_cropped_features_are_those_of_the_cropped_image_but_for_a_ring(name: str) -> None:
    padding, num = 2, 25
    network, images = extractor(name), RNG.integers(0, 256, (num, SIZE, SIZE, 3), np.uint8)
    black = features_of(network, np.zeros((1, SIZE, SIZE, 3), np.uint8))[0, :, SIZE // 2, SIZE // 2]
    top, left = np.divmod(np.arange(num), 5)
    around = ((0, 0), (padding, padding), (padding, padding))
    padded = np.pad(images, (*around, (0, 0)))
    is_image = np.pad(np.ones((num, SIZE, SIZE), bool), around)
    cuts = [np.s_[t : t + SIZE, el : el + SIZE] for t, el in zip(top, left, strict=True)]
    expected = features_of(network, np.stack([padded[row, *cut] for row, cut in enumerate(cuts)]))
    none = np.zeros(num, bool)
    outside = np.tile(black, (num, 1))
    views = shifted_views(features_of(network, images), outside, padding, top, left, none, is_tied=False)
    inside = np.stack([is_image[row, *cut] for row, cut in enumerate(cuts)])
    # A pixel that a 3x3 convolution computes from the image alone, or from black alone.
    near = np.stack([inside[:, i : SIZE - 2 + i, j : SIZE - 2 + j] for i in range(3) for j in range(3)])
    sure = np.zeros_like(inside)
    sure[:, 1:-1, 1:-1] = near.all(axis=0) | ~near.any(axis=0)
    difference = np.abs(views - expected).max(axis=1)
    assert difference[sure].max() < 1e-5
    assert sure.mean() > 0.5 and difference[~sure].max() > 0.1


class Recorded(nn.Module):
    """A network that remembers what it was given, in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, 3)
        self.seen: dict[bool, list[NDArray[np.float32]]] = {True: [], False: []}

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.seen[self.training].append(features.numpy().copy())
        logits: torch.Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


def test_the_server_trains_on_views_and_answers_what_was_uploaded() -> None:
    config = RunConfig(server_epochs=2, server_batch_size=32, feature_augmentation="crop+flip")
    network = Recorded()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    options = {"round_num": 2, "num_classes": 3, "views": FeatureViews.of_run(config, "resnet8")}
    server_update(network, optimizer, SAMPLES, config, **options)  # type: ignore[arg-type]
    uploaded = {each.tobytes() for each in SAMPLES.gather(np.arange(18)).features}
    first, second = network.seen[True]
    # One of 162 views may come twice.
    assert len({each.tobytes() for each in first} & {each.tobytes() for each in second}) <= 3
    (answered,) = network.seen[False]
    assert {each.tobytes() for each in answered} == uploaded
