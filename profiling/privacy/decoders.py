"""Attackers which learn to turn features back into images, from pairs that they have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class DecoderSize:
    """How large a decoder is.

    Attributes:
        width: Channels of its layers.
        blocks: Residual blocks of two convolutions at each resolution.
        learning_rate: Of Adam at the beginning.
    """

    width: int
    blocks: int
    learning_rate: float


# The large one has ten times the small one's parameters and more, at every tap.
SMALL, LARGE = DecoderSize(48, 0, 2e-3), DecoderSize(96, 2, 1e-3)


class _Block(nn.Module):
    """Add to features what two convolutions make of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        # As nothing at first: a deep decoder begins as a shallow one.
        nn.init.zeros_(self.second.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Compute ``[N, W, H, W]`` of the same shape."""
        added: Tensor = features + self.second(F.relu(self.first(F.relu(features))))
        return added


class Decoder(nn.Module):
    """Convolutions of 3 x 3: ``[N, C, H, W]`` features to ``[N, 3, stride * H, stride * W]`` in 0..1.

    Args:
        channels: C.
        stride: Pixels for a feature on each side, a power of two: so often the resolution is doubled.
        size: How large it is.
    """

    def __init__(self, channels: int, stride: int, size: DecoderSize) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=1)

        blocks = [_Block(size.width) for _ in range(size.blocks)]
        layers: list[nn.Module] = [convolution(channels, size.width), *blocks, nn.ReLU()]
        for _ in range(stride.bit_length() - 1):
            blocks = [_Block(size.width) for _ in range(size.blocks)]
            enlarged = nn.Upsample(scale_factor=2, mode="nearest")
            layers += [enlarged, convolution(size.width, size.width), *blocks, nn.ReLU()]
        layers += [convolution(size.width, size.width), nn.ReLU(), convolution(size.width, 3)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Reconstruct images."""
        images: Tensor = torch.sigmoid(self.layers(features))
        return images


def train_decoder(
    features: Tensor,
    images: Tensor,
    size: DecoderSize,
    *,
    epochs: int,
    batch_size: int = 64,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Decoder:
    """Train a decoder on pairs that the attacker has: features of images that it knows.

    Args:
        features: ``[N, C, H, W]``, as they arrive at the server.
        images: ``[N, 3, stride * H, stride * W]`` in 0..1.
        size: How large the decoder is.
        epochs: Passes over the pairs.
        batch_size: Pairs in a step.
        seed: Of weights and order.
        on_epoch: Told after each epoch: its number and its mean loss.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Decoder(features.shape[1], images.shape[2] // features.shape[2], size)
    # Features of different codecs and networks differ in scale; the attacker sees that too.
    scale = float(features.std()) or 1.0
    with torch.no_grad():
        first = decoder.layers[0]
        assert isinstance(first, nn.Conv2d)
        first.weight.div_(scale)
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=size.learning_rate)
    num_steps = epochs * -(-len(features) // batch_size)
    # Falls to 0 along a cosine.
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
    """Images ``[N, 3, S, S]`` in 0..1 from features."""
    decoder.eval()
    with torch.no_grad():
        return torch.cat([decoder(part) for part in torch.split(features, batch_size)])
