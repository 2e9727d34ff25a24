"""A run whose first round waits for the trainer: random features, stored as a web process stores them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gkt_core.config.run_config import RunConfig
from gkt_core.wire.shards import ShardKey, write_feature_shard
from profiling.counted.message_sizes import TYPICAL_REPORT
from server_app.run_folder import RunContext, create_run, shard_blob
from server_app.store.records import ClientRecord, ShardRecord


@dataclass(frozen=True, slots=True)
class RunSize:
    """How much there is to train on.

    Attributes:
        num_clients: Devices.
        num_examples: Training samples of each.
        server_epochs: Over all of them.
        batch_size: Of the server.
        codec: Of the features.
        num_validation: Validation samples of each.
    """

    num_clients: int
    num_examples: int
    server_epochs: int
    batch_size: int
    codec: str = "fp32"
    num_validation: int = 2

    @property
    def config(self) -> RunConfig:
        """Of a run of one round, whose soft labels are made after its training."""
        return RunConfig(
            num_clients=self.num_clients,
            rounds=1,
            server_epochs=self.server_epochs,
            server_batch_size=self.batch_size,
            codec=self.codec,
            compress=False,
            soft_labels="evaluation",
            # Random numbers are features of no image.
            quarantine=False,
        )


def make_ready_run(folder: Path, bundle: Path, size: RunSize) -> RunContext:
    """Make a run that the trainer can begin with at once.

    Args:
        folder: Of the run; must not exist.
        bundle: Exported artifacts.
        size: How much is uploaded.
    """
    run = create_run(folder, bundle, size.config)
    generator = np.random.default_rng(0)
    client_ids = [f"client-{number:03d}" for number in range(size.num_clients)]
    for client_id in client_ids:
        run.store.join(ClientRecord(client_id, size.num_examples, size.num_validation, "portable"))
    for client_id in client_ids:
        counts = {}
        for split, num in (("train", size.num_examples), ("validation", size.num_validation)):
            starts = range(0, num, run.config.shard_samples)
            for index, start in enumerate(starts):
                ids = np.arange(start, min(start + run.config.shard_samples, num))
                _upload(run, ShardKey(client_id, 1, split, index), ids, generator)
            counts[split] = len(starts)
        report = replace(
            TYPICAL_REPORT,
            num_train_shards=counts["train"],
            num_validation_shards=counts["validation"],
            num_examples=size.num_examples,
        )
        run.store.close_part(client_id, 1, report)
    return run


def _upload(
    run: RunContext, key: ShardKey, sample_ids: np.ndarray[tuple[int], np.dtype[np.int64]],
    generator: np.random.Generator,
) -> None:  # fmt: skip
    num, num_classes = len(sample_ids), run.bundle.manifest.num_classes
    data = write_feature_shard(
        key,
        sample_ids,
        # After a ReLU about half of the features are zero.
        np.maximum(generator.standard_normal((num, *run.bundle.manifest.feature_shape), np.float32), 0),
        generator.standard_normal((num, num_classes), np.float32),
        generator.integers(0, num_classes, num),
        run.config.codec,
    )
    sha256 = hashlib.sha256(data).hexdigest()
    blob = shard_blob(key, sha256)
    run.blobs.put(blob, data)
    run.store.add_shard(ShardRecord(key, sha256, num, len(data), blob))
