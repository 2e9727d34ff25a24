"""What features say without a picture: which of many images they are of, and what is in it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BATCH, _WIDTH = 500, 64


def identified(wanted: Tensor, gallery: Tensor, own: Tensor) -> float:
    """Say which share of uploads is told apart from all other images that they might be of.

    The attacker computes the features of every candidate, and takes the nearest.

    Args:
        wanted: Features as they arrive, ``[N, C, H, W]``.
        gallery: Features of candidates, ``[M, C, H, W]``.
        own: For each of the N which candidate is its image, ``[N] int64``.
    """
    queries = wanted.flatten(1)
    nearest = torch.full((len(queries),), torch.inf)
    which = torch.zeros(len(queries), dtype=torch.int64)
    for begin in range(0, len(gallery), _BATCH):
        candidates = gallery[begin : begin + _BATCH].flatten(1)
        # Without the queries' own squares, which are the same for all candidates.
        apart = candidates.square().sum(dim=1) - 2 * queries @ candidates.t()
        least, at = apart.min(dim=1)
        closer = least < nearest
        nearest, which = torch.where(closer, least, nearest), torch.where(closer, at + begin, which)
    return float((which == own).float().mean())


def label_accuracy(
    known: Tensor,
    labels: Tensor,
    wanted: Tensor,
    answers: Tensor,
    *,
    num_classes: int,
    epochs: int,
    seed: int,
) -> float:
    """Say how often a small network tells from features alone what is in the image.

    Args:
        known: Features that the attacker has, ``[N, C, H, W]``.
        labels: Of those, ``[N] int64``.
        wanted: Features as they arrive, ``[M, C, H, W]``.
        answers: Their labels, ``[M] int64``.
        num_classes: How many there are.
        epochs: Passes over the known ones.
        seed: Of weights and order.
    """
    mean, spread = known.mean(dim=(0, 2, 3), keepdim=True), float(known.std()) or 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(known.shape[1], _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(8 if known.shape[2] >= 8 else known.shape[2]),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * _WIDTH, num_classes),
        )
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(known) // 64))
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(known), generator=order), 64):
            optimizer.zero_grad()
            loss = F.cross_entropy(network((known[rows] - mean) / spread), labels[rows])
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        parts = [network((part - mean) / spread).argmax(dim=1) for part in torch.split(wanted, _BATCH)]
    return float((torch.cat(parts) == answers).float().mean())
