"""The attacker: a small decoder that learns to turn features back into images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTH = 48


class Decoder(nn.Module):
    """Three convolutions of 3 x 3: ``[N, C, H, W]`` features to ``[N, 3, H, W]`` in 0..1.

    The tap keeps the image's size, so nothing has to be enlarged. A larger attacker sees more: what this
    one reaches is a lower bound of what the features give away.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, 3, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Reconstruct images."""
        images: Tensor = torch.sigmoid(self.layers(features))
        return images


def train_decoder(
    features: Tensor,
    images: Tensor,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Decoder:
    """Train a decoder on pairs that the attacker has: features of images that it knows.

    Args:
        features: ``[N, C, H, W]``, as they arrive at the server.
        images: ``[N, 3, H, W]`` in 0..1.
        epochs: Passes over the pairs.
        batch_size: Pairs in a step.
        learning_rate: Of Adam, falling to 0 along a cosine.
        seed: Of weights and order.
        on_epoch: Told after each epoch: its number and its mean loss.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Decoder(features.shape[1])
    # Features of different codecs and networks differ in scale; the attacker sees that too.
    scale = float(features.std()) or 1.0
    with torch.no_grad():
        first = decoder.layers[0]
        assert isinstance(first, nn.Conv2d)
        first.weight.div_(scale)
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=learning_rate)
    num_steps = epochs * -(-len(features) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for rows in torch.split(torch.randperm(len(features), generator=order), batch_size):
            optimizer.zero_grad()
            loss = F.mse_loss(decoder(features[rows]), images[rows])
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        on_epoch(epoch, total / len(features))
    return decoder


def reconstruct(decoder: Decoder, features: Tensor, *, batch_size: int = 256) -> Tensor:
    """Images ``[N, 3, H, W]`` in 0..1 from features."""
    decoder.eval()
    with torch.no_grad():
        return torch.cat([decoder(part) for part in torch.split(features, batch_size)])
