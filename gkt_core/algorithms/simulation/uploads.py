"""What simulated devices send: real shards, counted, without a server to receive them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.rounds.client_round import Extracted, TrainingEngine, extract
from gkt_core.rounds.feature_source import ShardSource
from gkt_core.wire.compression import compress
from gkt_core.wire.feature_noise import FeatureNoise, simulated_key
from gkt_core.wire.shards import ShardKey, ShardSpec, read_feature_shard, write_feature_shard


class Uploads:
    """Simulated uploads: shards encoded as on the wire, counted, kept in memory or in files.

    Args:
        spec: What every shard looks like.
        config: Hyper-parameters.
        folder: Where shards are kept; None for memory.
        noise: What devices do to features before they send them.
    """

    def __init__(
        self, spec: ShardSpec, config: RunConfig, folder: Path | None, noise: FeatureNoise | None = None
    ) -> None:
        self._spec, self._config, self._folder = spec, config, folder
        self._noise = noise or FeatureNoise()
        self.clear()

    def clear(self) -> None:
        """Forget all shards."""
        self._files: list[tuple[ShardKey, Path]] = []
        self._memory: list[tuple[ShardKey, bytes]] = []
        self.num_bytes = 0
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)

    def send_client(
        self, engine: TrainingEngine, data: PrivateData, *, client_id: str, round_num: int
    ) -> None:
        """Extract and send what a device uploads in a round (lines 22 to 30 of FedGKT's Algorithm 1).

        Args:
            engine: The device's network.
            data: Its training samples go as the round's view, its validation samples as they are.
            client_id: The device.
            round_num: From 1.
        """
        views = {"train": (data.train, round_num), "validation": (data.validation, None)}
        for split, (samples, view_round) in views.items():
            key = ShardKey(client_id, round_num, split, 0)
            self.send_split(engine, samples, key, view_round=view_round)

    def send_split(
        self, engine: TrainingEngine, samples: Samples, key: ShardKey, *, view_round: int | None
    ) -> None:
        """Extract and send some samples of a device.

        Args:
            engine: The device's network.
            samples: What to send.
            key: Of the first shard; the others are counted from it.
            view_round: The augmented view, or None for the images as they are.
        """
        parts = extract(engine, samples, self._config, client_id=key.client_id, view_round=view_round)
        for index, part in enumerate(parts):
            self.send(replace(key, index=index), part)

    def send(self, key: ShardKey, part: Extracted) -> None:
        """Encode and keep one shard."""
        noise = replace(self._noise, key=simulated_key(self._config.seed, key.client_id))
        features = noise.blur(part.features, part.sample_ids, key.round_num)
        data = write_feature_shard(
            key, part.sample_ids, features, part.client_logits, part.labels, self._config.codec
        )
        self.num_bytes += len(compress(data)) if self._config.compress else len(data)
        if self._folder is None:
            self._memory.append((key, data))
            return
        path = self._folder / f"{key.client_id}-{key.split}-{key.index:06d}.safetensors"
        path.write_bytes(data)
        self._files.append((key, path))

    def forget(self, client_ids: frozenset[str]) -> None:
        """Drop the shards of some devices; the bytes that they sent remain counted."""
        self._files = [(key, path) for key, path in self._files if key.client_id not in client_ids]
        self._memory = [(key, data) for key, data in self._memory if key.client_id not in client_ids]

    def source(self, split: str) -> ShardSource:
        """The samples of one split in canonical order."""
        if self._folder is not None:
            return ShardSource.from_files(((k, p) for k, p in self._files if k.split == split), self._spec)
        return ShardSource(
            (key.client_id, read_feature_shard(data, key, self._spec, check_values=False))
            for key, data in self._memory
            if key.split == split
        )
