"""An attacker that knows the extractor: it looks for images of which that makes what was uploaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gkt_core.nn import EdgeNetwork
from profiling.privacy.similarity import ssim

_BATCH, _LEARNING_RATE = 128, 0.02


@dataclass(frozen=True, slots=True)
class Prior:
    """What the attacker holds for likely beside the features.

    Attributes:
        smoothness: Weight of the total variation (Rudin et al., 1992; Mahendran and Vedaldi, 2015).
        nearness: Weight of the squared distance to where the search begins.
    """

    smoothness: float
    nearness: float


# The attacker tries them on images that it knows, and keeps the one that rebuilds those best.
PRIORS = tuple(Prior(smoothness, nearness) for smoothness in (0.0, 0.01, 0.1) for nearness in (0.1, 3.0))


def best_prior(
    network: EdgeNetwork,
    uploaded: Tensor,
    start: Tensor,
    images: Tensor,
    *,
    steps: int,
    priors: Sequence[Prior] = PRIORS,
) -> Prior:
    """Choose a prior on images that the attacker knows: by the median SSIM of what the search makes of them.

    Args:
        network: The extractor is part of it.
        uploaded: Their features ``[N, C, H, W]``, as they arrive.
        start: Where the search begins, ``[N, 3, S, S]`` in 0..1.
        images: The images themselves, ``[N, 3, S, S]``.
        steps: Of the search.
        priors: What is tried.
    """
    reached = [
        float(ssim(images, search(network, uploaded, start, prior, steps=steps)).median()) for prior in priors
    ]
    return priors[reached.index(max(reached))]


def search(network: EdgeNetwork, uploaded: Tensor, start: Tensor, prior: Prior, *, steps: int) -> Tensor:
    """Go from first guesses to images whose features are those that were uploaded.

    Adam on pixels, each image for itself: the squared error of features over their variance, plus the prior.

    Args:
        network: As the attacker knows it; in eval mode.
        uploaded: ``[N, C, H, W]``.
        start: ``[N, 3, S, S]`` in 0..1.
        prior: What is likely.
        steps: Of Adam.

    Returns:
        ``[N, 3, S, S]`` in 0..1.
    """
    spread = float(uploaded.var()) or 1.0
    needed = [each.requires_grad for each in network.parameters()]
    network.requires_grad_(requires_grad=False)
    try:
        with torch.enable_grad():
            parts = zip(torch.split(uploaded, _BATCH), torch.split(start, _BATCH), strict=True)
            return torch.cat([_searched(network, *part, spread, prior, steps) for part in parts])
    finally:
        for each, was in zip(network.parameters(), needed, strict=True):
            each.requires_grad_(was)


def _searched(
    network: EdgeNetwork, uploaded: Tensor, start: Tensor, spread: float, prior: Prior, steps: int
) -> Tensor:
    images = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([images], lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    num = len(images)
    for _ in range(steps):
        optimizer.zero_grad()
        features = network.extractor(network.normalise(images))
        # Means over an image, and a sum over images: how many there are at once changes nothing.
        loss = num * (features - uploaded).square().mean() / spread
        loss = loss + prior.smoothness * num * _variation(images)
        loss = loss + prior.nearness * num * (images - start).square().mean()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    return images.detach()


def _variation(images: Tensor) -> Tensor:
    """Mean difference of neighbouring pixels."""
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().mean()
    return down + (images[..., 1:] - images[..., :-1]).abs().mean()
