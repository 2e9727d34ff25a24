"""A device's part in a run, the same value on a real device and in a simulation, and its views of images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import augmented_view
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.wire.feature_noise import FeatureNoise


@dataclass(frozen=True, slots=True)
class ClientPart:
    """Who takes part, with which data, under which settings.

    Attributes:
        client_id: The device's name; its views, batches and noise follow from it.
        data: The private data; only features, logits, labels and sample ids leave.
        config: The run's hyper-parameters.
        num_classes: Width of the logits.
        noise: What happens to features before they leave.
        first_rounds: ``[N] int64``: the first round whose soft labels can hold each training sample; None
            where the data have been the same from the first round on.
    """

    client_id: str
    data: PrivateData
    config: RunConfig
    num_classes: int
    noise: FeatureNoise = field(default_factory=FeatureNoise)
    first_rounds: NDArray[np.int64] | None = None

    def samples(self, split: str) -> Samples:
        """Give the samples of a split, ``train`` or ``validation``."""
        return self.data.train if split == "train" else self.data.validation

    def untaught(self, teacher_round: int) -> NDArray[np.bool_]:
        """Mark the training samples, ``[N]``, that came too late for the soft labels of a round."""
        if self.first_rounds is None:
            return np.zeros(len(self.data.train), np.bool_)
        return self.first_rounds > teacher_round

    def num_shards(self, split: str) -> int:
        """Count the shards that a split makes."""
        return -(-len(self.samples(split)) // self.config.shard_samples)


def client_seed(seed: int, client_id: str) -> int:
    """Derive a device's seed from the run's seed and the device's name."""
    digest = hashlib.sha256(f"{seed}/{client_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def draw_view(
    samples: Samples, rows: NDArray[np.intp], config: RunConfig, client_id: str, round_num: int
) -> NDArray[np.float32]:
    """Draw images ``[n, 3, S, S]`` of the view that belongs to ``round_num``."""
    return augmented_view(
        samples.images[rows],
        samples.sample_ids[rows],
        seed=client_seed(config.seed, client_id),
        round_num=round_num,
        crop_padding=config.crop_padding,
        horizontal_flip=config.horizontal_flip,
    )
