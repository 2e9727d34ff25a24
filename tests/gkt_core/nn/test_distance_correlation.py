"""Distance correlation as a loss: what it is by its definition, and what it does to features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gkt_core.nn.losses import distance_correlation


def plain(images: NDArray[np.float64], features: NDArray[np.float64]) -> float:
    """Definition 2 and 3 of Szekely et al., one pair after the other."""
    num, centred = len(images), []
    for values in (images.reshape(len(images), -1), features.reshape(len(features), -1)):
        apart = np.array([[np.linalg.norm(values[i] - values[j]) for j in range(num)] for i in range(num)])
        centred.append(apart - apart.mean(0) - apart.mean(1)[:, None] + apart.mean())
    a, b = centred
    return float((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))


def drawn(num: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(num, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num", [3, 8, 21])
def test_it_is_what_its_definition_says(num: int) -> None:
    images, features = drawn(num, 3, 4, 4), drawn(num, 2, 2, 2, seed=1)
    features = features + images[:, :2, :2, :2]
    expected = plain(images.numpy(), features.numpy())
    assert distance_correlation(images, features).item() == pytest.approx(expected, rel=1e-4)


def test_it_is_one_of_a_copy_and_less_of_what_says_less() -> None:
    images = drawn(32, 3, 4, 4)
    copy = distance_correlation(images, 5 * images + 3)
    assert copy.item() == pytest.approx(1, abs=1e-5)
    noisy = distance_correlation(images, images + 3 * drawn(32, 3, 4, 4, seed=2))
    nothing = distance_correlation(images, drawn(32, 3, 4, 4, seed=3))
    assert nothing < noisy < copy


def test_images_that_come_twice_and_batches_of_two_have_finite_gradients() -> None:
    for images in (drawn(2, 3, 4, 4), drawn(4, 3, 4, 4)[[0, 1, 1, 3]], torch.zeros(5, 3, 4, 4)):
        features = images[:, :1].clone().float().requires_grad_()
        distance_correlation(images.float(), features).backward()  # type: ignore[no-untyped-call]
        assert features.grad is not None
        assert bool(features.grad.isfinite().all())


def test_its_gradient_is_the_slope() -> None:
    images = drawn(5, 3, 2, 2)
    features = drawn(5, 1, 2, 2, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: distance_correlation(images, f), (features,))


def test_a_network_that_is_penalised_learns_features_that_say_less() -> None:
    images, correlations = drawn(48, 3, 4, 4).float(), []
    labels = (images.mean(dim=(1, 2, 3)) > 0).long()
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        extractor, head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(64, 2)
        optimizer = torch.optim.Adam([*extractor.parameters(), *head.parameters()], 1e-2)
        for _ in range(80):
            features = torch.relu(extractor(images))
            correlation = distance_correlation(images, features)
            loss = nn.functional.cross_entropy(head(features.flatten(1)), labels) + weight * correlation
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        correlations.append(correlation.item())
    assert correlations[1] < 0.7 * correlations[0]
