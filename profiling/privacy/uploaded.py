"""Features as the server gets them: from a device's extractor, through a codec, with noise if wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gkt_core.algorithms import TorchEngine
from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import batch_order, batches, to_float_nchw
from gkt_core.nn import EdgeNetwork, build_edge_network
from gkt_core.wire.codec import decode, encode
from gkt_core.wire.feature_noise import FeatureNoise, simulated_key
from gkt_core.wire.levels.transport import level_features, wire_body
from gkt_core.wire.shards import ShardKey, write_feature_shard

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Upload:
    """What a device's images become on their way.

    Attributes:
        features: ``[N, C, H, W]``, as the server gets them.
        bytes_per_sample: Of the shards as they travel, logits, labels and ids among them.
    """

    features: Tensor
    bytes_per_sample: float


def trained_edge_network(
    name: str,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    num_classes: int,
    epochs: int,
    seed: int,
    leakage_penalty: float = 0.0,
) -> EdgeNetwork:
    """An edge network as a device has it after some local epochs.

    Args:
        name: Which network.
        images: ``[N, S, S, 3] uint8``.
        labels: ``[N] int64``.
        num_classes: Width of the logits.
        epochs: 0 for fresh weights, which is what the first upload is nearly made with.
        seed: Of weights and order.
        leakage_penalty: Of the device's loss.
    """
    network = build_edge_network(name, num_classes, seed=seed)
    engine = TorchEngine(network, RunConfig(leakage_penalty=leakage_penalty))
    for epoch in range(1, epochs + 1):
        order = batch_order(len(images), seed=seed, round_num=1, epoch=epoch)
        for rows in batches(order, _BATCH):
            nobody = np.zeros((len(rows), num_classes), np.float32)
            engine.train_step(to_float_nchw(images[rows]), labels[rows].astype(np.int64), nobody, 0.0)
    return network.eval()


def extract_features(
    network: EdgeNetwork, images: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features ``[N, C, H, W]`` and logits ``[N, K]`` in eval mode."""
    with torch.no_grad():
        parts = [
            network(torch.from_numpy(to_float_nchw(images[begin : begin + _BATCH])))
            for begin in range(0, len(images), _BATCH)
        ]
    features, logits = (torch.cat(each).numpy() for each in zip(*parts, strict=True))
    return features, logits


def as_uploaded(
    features: NDArray[np.float32],
    logits: NDArray[np.float32],
    codec: str,
    noise: float,
    *,
    spread: float,
    seed: int,
) -> Upload:
    """Do to features what happens on their way: noise on the device, then the codec, a shard at a time.

    Args:
        features: ``[N, C, H, W]``.
        logits: ``[N, K]``, which travel beside them.
        codec: Name of the codec.
        noise: Standard deviation of Gaussian noise, in units of ``spread``.
        spread: Standard deviation of the features.
        seed: Of the noise.
    """
    shape = (features.shape[1], features.shape[2], features.shape[3])
    levels = level_features(codec, shape)
    on_device = FeatureNoise(noise=noise * spread, key=simulated_key(seed, "victim"))
    parts, num_bytes = [], 0
    for begin in range(0, len(features), _BATCH):
        rows = slice(begin, min(begin + _BATCH, len(features)))
        sample_ids = np.arange(rows.start, rows.stop, dtype=np.int64)
        part = on_device.blur(features[rows], sample_ids, 1)
        parts.append(decode(encode(part, codec), shape))
        nothing = np.zeros(len(sample_ids), np.int64)
        key = ShardKey("device", 1, "train", begin // _BATCH)
        shard = write_feature_shard(key, sample_ids, part, logits[rows], nothing, codec)
        num_bytes += len(wire_body(shard, levels, compressed=True).data)
    return Upload(torch.from_numpy(np.concatenate(parts)), num_bytes / len(features))
