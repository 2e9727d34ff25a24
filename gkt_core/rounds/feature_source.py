"""What the server trains on: the samples of all devices in canonical order, read when a batch asks.

Canonical means sorted by client id and sample id, however the uploads arrived. Features stay on disk:
a source holds ids, labels and file mappings, never all features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import ShardError
from gkt_core.wire.shards import FeatureShard, ShardKey, ShardSpec, SoftLabels, map_feature_shard


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Some samples, decoded.

    Attributes:
        features: ``[n, C, H, W] float32``.
        client_logits: ``[n, classes] float32``.
        labels: ``[n] int64``.
        outside: ``[n, C] float32``: the feature of black, which lies around an image; 0 where unknown.
        label_epsilon: ``[n]``: epsilon of randomised labels, 0 of those as they are; None if all are.
    """

    features: NDArray[np.float32]
    client_logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    outside: NDArray[np.float32]
    label_epsilon: NDArray[np.float64] | None = None


class ShardSource:
    """Shards, memory-mapped or in memory, as one canonical sequence of ``N`` samples.

    Attributes:
        client_ids: The devices, sorted.
        owners: ``[N]``: position in ``client_ids`` of each sample's device.
        sample_ids: ``[N]``: each sample's id on its device.

    Raises:
        ShardError: There are no shards, or a sample is there twice.
    """

    def __init__(self, shards: Iterable[tuple[str, FeatureShard]]) -> None:
        pairs = list(shards)
        if not pairs:
            raise ShardError("no shards to train on: no device sent samples of this split")
        self._shards = [shard for _, shard in pairs]
        self.client_ids: Sequence[str] = sorted({client_id for client_id, _ in pairs})
        place = {client_id: number for number, client_id in enumerate(self.client_ids)}
        sizes = [len(shard.sample_ids) for shard in self._shards]
        owners = np.repeat(np.asarray([place[client_id] for client_id, _ in pairs], np.intp), sizes)
        sample_ids = np.concatenate([np.asarray(shard.sample_ids) for shard in self._shards])
        order = np.lexsort((sample_ids, owners))
        self.owners: NDArray[np.intp] = owners[order]
        self.sample_ids: NDArray[np.int64] = sample_ids[order]
        same = (np.diff(self.owners) == 0) & (np.diff(self.sample_ids) == 0)
        if same.any():
            first = int(np.flatnonzero(same)[0])
            raise ShardError(
                f"{self.client_ids[self.owners[first]]} sent sample {self.sample_ids[first]} "
                "twice in one round"
            )
        self._shard_of = np.repeat(np.arange(len(sizes)), sizes)[order]
        # Kept by shard: the samples of a shard share it.
        self._epsilons = np.asarray([shard.label_epsilon for shard in self._shards])
        self._row_of = np.concatenate([np.arange(size) for size in sizes])[order]

    @classmethod
    def from_files(cls, files: Iterable[tuple[ShardKey, Path]], spec: ShardSpec) -> ShardSource:
        """Memory-map stored shards.

        Raises:
            ShardError: A file is not the shard it should be, or a sample is there twice.
        """
        return cls((key.client_id, map_feature_shard(path, key, spec)) for key, path in files)

    def __len__(self) -> int:
        return len(self.sample_ids)

    def samples_within(self, num_bytes: int) -> int:
        """How many samples' features are so many bytes once they are decoded; at least one."""
        return max(1, num_bytes // (4 * math.prod(self._shards[0].feature_shape)))

    def gather(self, rows: NDArray[np.intp]) -> FeatureBatch:
        """Decode the samples at these canonical positions, in this order."""
        shard_numbers, first = self._shard_of[rows], self._shards[0]
        features = np.empty((len(rows), *first.feature_shape), np.float32)
        logits = np.empty((len(rows), first.client_logits.shape[1]), np.float32)
        labels = np.empty(len(rows), np.int64)
        outside = np.zeros((len(rows), first.feature_shape[0]), np.float32)
        for number in np.unique(shard_numbers):
            places, shard = np.flatnonzero(shard_numbers == number), self._shards[number]
            shard_rows = self._row_of[rows[places]]
            features[places] = shard.features(shard_rows)
            logits[places] = shard.client_logits[shard_rows]
            labels[places] = shard.labels[shard_rows]
            if shard.outside is not None:
                outside[places] = shard.outside
        epsilons = self._epsilons[shard_numbers] if self._epsilons.any() else None
        return FeatureBatch(features, logits, labels, outside, epsilons)

    def epsilon_of(self, client_id: str) -> float:
        """Give the epsilon of a device's labels, the greatest of its shards'; 0 for labels as they are."""
        mine = self.owners == list(self.client_ids).index(client_id)
        return float(self._epsilons[self._shard_of[mine]].max(initial=0.0))


def split_by_client(source: ShardSource, server_logits: NDArray[np.float32]) -> dict[str, SoftLabels]:
    """Return every soft label to its own device, keyed by sample.

    ``server_logits`` are ``[N, classes] float32`` in the canonical order of the source.
    """
    return {
        client_id: SoftLabels(
            np.ascontiguousarray(source.sample_ids[source.owners == number]),
            np.ascontiguousarray(server_logits[source.owners == number]),
        )
        for number, client_id in enumerate(source.client_ids)
    }
