"""Features as the server gets them: from a device's extractor, through a codec, with noise if wanted."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gkt_core.data.augment import to_float_nchw
from gkt_core.nn import EdgeNetwork, build_edge_network
from gkt_core.wire.codec import decode, encode
from gkt_core.wire.feature_noise import FeatureNoise, simulated_key

_BATCH = 64


def trained_edge_network(
    images: NDArray[np.uint8], labels: NDArray[np.int64], *, num_classes: int, epochs: int, seed: int
) -> EdgeNetwork:
    """A ResNet-8 as a device has it after some local epochs.

    Args:
        images: ``[N, S, S, 3] uint8``.
        labels: ``[N] int64``.
        num_classes: Width of the logits.
        epochs: 0 for fresh weights, which is what the first upload is nearly made with.
        seed: Of weights and order.
    """
    network = build_edge_network("resnet8", num_classes, seed=seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    order = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(images), generator=order), _BATCH):
            # Batch normalisation needs two samples.
            if len(rows) < 2:
                continue
            optimizer.zero_grad()
            _, logits = network(torch.from_numpy(to_float_nchw(images[rows.numpy()])))
            torch.autograd.backward(F.cross_entropy(logits, torch.from_numpy(labels[rows.numpy()])))
            optimizer.step()
    return network.eval()


def extract_features(network: EdgeNetwork, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features ``[N, C, H, W]`` in eval mode."""
    with torch.no_grad():
        parts = [
            network(torch.from_numpy(to_float_nchw(images[begin : begin + _BATCH])))[0].numpy()
            for begin in range(0, len(images), _BATCH)
        ]
    return np.concatenate(parts)


def as_uploaded(
    features: NDArray[np.float32], codec: str, noise: float, *, spread: float, seed: int
) -> Tensor:
    """Do to features what happens on their way: noise on the device, then the codec, a shard at a time.

    Args:
        features: ``[N, C, H, W]``.
        codec: Name of the codec.
        noise: Standard deviation of Gaussian noise, in units of ``spread``.
        spread: Standard deviation of the features.
        seed: Of the noise.
    """
    shape = (features.shape[1], features.shape[2], features.shape[3])
    on_device = FeatureNoise(noise=noise * spread, key=simulated_key(seed, "victim"))
    parts = []
    for begin in range(0, len(features), _BATCH):
        sample_ids = np.arange(begin, min(begin + _BATCH, len(features)), dtype=np.int64)
        part = on_device.blur(features[begin : begin + _BATCH], sample_ids, 1)
        parts.append(decode(encode(part, codec), shape))
    return torch.from_numpy(np.concatenate(parts))
