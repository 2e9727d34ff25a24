"""What would leave this device, in words and bytes, without sending any of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_runtime.backends.base import open_backend
from gkt_core.client_round import extract
from gkt_core.compression import compress
from gkt_core.config import RunConfig
from gkt_core.manifest import Bundle
from gkt_core.private_data import PrivateData
from gkt_core.shards import ShardKey, write_feature_shard


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would leave.

    Attributes:
        leaves: Kinds of data that would be sent, in words.
        stays: Kinds of data that would not.
        tensors: Shape and dtype of each tensor of one shard.
        num_train_samples: Training samples, in every round.
        num_validation_samples: Validation samples, in every round.
        shard_bytes: The first training shard as it would be sent.
        round_bytes: All shards of a round, estimated from that shard.
        run_bytes: All rounds.
        rounds: Rounds.
        codec: How features would travel.
        compressed: Whether Zstandard is applied.
    """

    leaves: list[str]
    stays: list[str]
    tensors: dict[str, str]
    num_train_samples: int
    num_validation_samples: int
    shard_bytes: int
    round_bytes: int
    run_bytes: int
    rounds: int
    codec: str
    compressed: bool


def dry_run(
    bundle: Bundle, data: PrivateData, config: RunConfig, *, client_id: str, num_threads: int
) -> DryRun:
    """Make the first shard of round 1 exactly as it would be sent, and measure it."""
    backend = open_backend(bundle, checkpoint=None, num_threads=num_threads, learning_rate=config.edge_lr)
    part = next(extract(backend, data.train, config, client_id=client_id, view_round=1))
    key = ShardKey(client_id, 1, "train", 0)
    shard = write_feature_shard(
        key, part.sample_ids, part.features, part.client_logits, part.labels, config.codec
    )
    shard_bytes = len(compress(shard)) if config.compress else len(shard)
    num_samples = len(data.train) + len(data.validation)
    round_bytes = round(shard_bytes / len(part.labels) * num_samples)

    def describe(array: Any) -> str:
        return f"{array.dtype} {list(array.shape)}"

    return DryRun(
        leaves=[
            "feature maps: the output of the first convolution for every image. They show much of the image",
            "labels of all training and validation images, as they are",
            "the device's predictions (logits) for them",
            "sample ids (numbers), client id, sample counts, training loss, accuracy and speed",
        ],
        stays=["the images themselves", "all weights of the device's network, extractor included"],
        tensors={
            "sample_ids": describe(part.sample_ids),
            "features": f"{describe(part.features)}, sent as {config.codec}",
            "client_logits": describe(part.client_logits),
            "labels": describe(part.labels),
        },
        num_train_samples=len(data.train),
        num_validation_samples=len(data.validation),
        shard_bytes=shard_bytes,
        round_bytes=round_bytes,
        run_bytes=round_bytes * config.rounds,
        rounds=config.rounds,
        codec=config.codec,
        compressed=config.compress,
    )
