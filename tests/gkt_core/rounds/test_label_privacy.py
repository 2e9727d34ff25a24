"""Randomised response on labels: the chances that epsilon promises, and a loss that learns true labels."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from gkt_core.algorithms.server_round import evaluate
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.errors import ConfigError, ShardError
from gkt_core.nn.losses import randomised_cross_entropy, server_loss
from gkt_core.rounds.feature_source import ShardSource
from gkt_core.rounds.label_privacy import chance_kept, randomised_labels, with_private_labels
from gkt_core.wire.feature_noise import FeatureNoise
from gkt_core.wire.shards import ShardKey, ShardSpec, read_feature_shard, write_feature_shard

KEY = bytes(range(32))
NUM, CLASSES = 20_000, 5


def drawn(epsilon: float, label: int = 2, key: bytes = KEY) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    labels, ids = np.full(NUM, label, np.int64), np.arange(NUM, dtype=np.int64)
    return randomised_labels(labels, ids, num_classes=CLASSES, epsilon=epsilon, key=key)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_no_response_tells_labels_apart_by_more_than_epsilon_says(epsilon: float) -> None:
    shares = np.bincount(drawn(epsilon), minlength=CLASSES) / NUM
    kept = chance_kept(epsilon, CLASSES)
    other = (1 - kept) / (CLASSES - 1)
    assert kept / other == pytest.approx(math.exp(epsilon))
    # Five standard deviations of a share.
    slack = 5 * math.sqrt(0.25 / NUM)
    assert shares[2] == pytest.approx(kept, abs=slack)
    assert all(share == pytest.approx(other, abs=slack) for label, share in enumerate(shares) if label != 2)


def test_a_response_is_drawn_once_and_only_with_the_key() -> None:
    assert np.array_equal(drawn(1.0), drawn(1.0))
    assert not np.array_equal(drawn(1.0), drawn(1.0, key=KEY[::-1]))
    ids = np.array([7, 3], np.int64)
    one = randomised_labels(np.zeros(2, np.int64), ids, num_classes=9, epsilon=0.1, key=KEY)
    two = randomised_labels(np.zeros(2, np.int64), ids[::-1], num_classes=9, epsilon=0.1, key=KEY)
    assert np.array_equal(one, two[::-1])
    with pytest.raises(ConfigError, match="the key of the labels has 0 bytes"):
        drawn(1.0, key=b"")


def private(epsilon: float) -> PrivateData:
    images = np.zeros((40, 8, 8, 3), np.uint8)
    train = Samples(images, np.arange(40, dtype=np.int64) % CLASSES, np.arange(40, dtype=np.int64))
    validation = Samples(images[:9], np.arange(9, dtype=np.int64) % CLASSES, np.arange(100, 109))
    data = PrivateData(train, validation, tuple("abcde"))
    return with_private_labels(data, FeatureNoise(key=KEY, label_privacy=epsilon), CLASSES)


def test_all_of_a_devices_labels_are_exchanged_and_nothing_else() -> None:
    plain, exchanged = private(0.0), private(0.2)
    for before, after in ((plain.train, exchanged.train), (plain.validation, exchanged.validation)):
        assert (before.labels != after.labels).mean() > 0.4
        assert np.array_equal(before.sample_ids, after.sample_ids)
        assert np.array_equal(before.images, after.images)
    assert np.array_equal(private(50.0).train.labels, plain.train.labels)


def test_the_corrected_loss_is_that_of_the_chances() -> None:
    logits = torch.randn(6, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels, epsilons = torch.arange(6) % CLASSES, torch.tensor([0.0, 0.5, 1, 2, 4, 50], dtype=torch.float64)
    kept = torch.tensor([chance_kept(float(each), CLASSES) for each in epsilons], dtype=torch.float64)
    chances = torch.softmax(logits, 1)
    other = (1 - kept) / (CLASSES - 1)
    own = chances.gather(1, labels[:, None])[:, 0]
    expected = -torch.log(kept * own + other * (1 - own))
    torch.testing.assert_close(randomised_cross_entropy(logits, labels, epsilons), expected)
    plain = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    none = server_loss(logits, labels, logits, 0.0, 3.0, 0.1, torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(none, plain)


def test_far_logits_give_finite_gradients() -> None:
    logits = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 0]], requires_grad=True)
    epsilons = torch.tensor([0.0, 1.0])
    randomised_cross_entropy(logits, torch.tensor([1, 0]), epsilons).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_a_network_learns_the_true_labels_from_responses() -> None:
    """Where the plain loss leaves it as unsure as the responses are."""
    epsilon = 1.0
    true = torch.arange(NUM) % CLASSES
    said = randomised_labels(
        true.numpy(), np.arange(NUM, dtype=np.int64), num_classes=CLASSES, epsilon=epsilon, key=KEY
    )
    features, labels = nn.functional.one_hot(true, CLASSES).float(), torch.from_numpy(said)
    sure = []
    for epsilons in (torch.full((NUM,), epsilon), None):
        network = nn.Linear(CLASSES, CLASSES)
        nn.init.zeros_(network.weight)
        optimizer = torch.optim.Adam(network.parameters(), 0.1)
        for _ in range(150):
            optimizer.zero_grad()
            logits = network(features)
            loss = server_loss(logits, labels, logits, 0.0, 3.0, 0.0, epsilons)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        chances = torch.softmax(network(torch.eye(CLASSES)), 1)
        sure.append(float(chances.diagonal().min().detach()))
    assert sure[0] > 0.85
    assert sure[1] < chance_kept(epsilon, CLASSES) + 0.05


SPEC = ShardSpec("fp32", (1, 2, 2), CLASSES, NUM)


def shard(epsilon: float, num: int = 4000) -> bytes:
    true = np.arange(num, dtype=np.int64) % CLASSES
    said = true
    if epsilon:
        said = randomised_labels(true, np.arange(num), num_classes=CLASSES, epsilon=epsilon, key=KEY)
    features = np.repeat(true.astype(np.float32), 4).reshape(num, 1, 2, 2)
    logits = np.zeros((num, CLASSES), np.float32)
    key = ShardKey("a", 1, "train", 0)
    return write_feature_shard(key, np.arange(num), features, logits, said, "fp32", None, epsilon)


class Knows(nn.Module):
    """Is right of the true labels with three of five classes, and knows how sure to be."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        true = features.mean(dim=(1, 2, 3)).round().long()
        shown = torch.where(true < 3, true, (true + 1) % CLASSES)
        return self.scale * nn.functional.one_hot(shown, CLASSES).float()


def test_accuracy_on_responses_is_estimated_as_on_the_true_labels() -> None:
    measured = {}
    for epsilon in (0.0, 1.0):
        read = read_feature_shard(shard(epsilon), ShardKey("a", 1, "train", 0), SPEC)
        assert read.label_epsilon == epsilon
        source = ShardSource([("a", read)])
        assert source.epsilon_of("a") == epsilon
        batch = source.gather(np.arange(3))
        assert (batch.label_epsilon is None) == (epsilon == 0)
        measured[epsilon] = evaluate(Knows(), source)
    assert measured[0.0].accuracy == pytest.approx(0.6)
    assert measured[1.0].accuracy == pytest.approx(0.6, abs=0.1)


def test_a_shard_without_is_what_it_was_and_one_that_says_nonsense_is_refused() -> None:
    assert b"label_epsilon" not in shard(0.0, 3)
    spoilt = shard(1.5, 3)
    for said in (b"-.5", b"NaN", b'"a"', b"1e9"):
        wrong = spoilt.replace(rb"label_epsilon\": 1.5", rb"label_epsilon\": " + said.replace(b'"', rb"\""))
        if len(wrong) != len(spoilt):
            size = int.from_bytes(wrong[:8], "little") + len(wrong) - len(spoilt)
            wrong = size.to_bytes(8, "little") + wrong[8:]
        with pytest.raises(ShardError, match=r"label_epsilon is|not that of a gkt shard|header"):
            read_feature_shard(wrong, ShardKey("a", 1, "train", 0), dataclasses.replace(SPEC, max_samples=8))
