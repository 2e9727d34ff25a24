"""What simulated devices send: real shards, counted, without a server to receive them."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from gkt_core.config.run_config import RunConfig
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_shards import Extracted, shards
from gkt_core.rounds.engine import TrainingEngine
from gkt_core.rounds.feature_source import ShardSource
from gkt_core.wire.levels.transport import level_features, wire_body
from gkt_core.wire.shards import (
    SPLITS,
    FeatureShard,
    ShardKey,
    ShardSpec,
    map_feature_shard,
    read_feature_shard,
)


class Uploads:
    """Shards encoded as on the wire, counted, kept in files of a folder or, without one, in memory."""

    def __init__(self, spec: ShardSpec, config: RunConfig, folder: Path | None) -> None:
        self._spec, self._config, self._folder = spec, config, folder
        self._levels = level_features(spec.codec, spec.feature_shape)
        self.clear()

    def clear(self) -> None:
        """Forget all shards."""
        self._shards: list[tuple[ShardKey, bytes | Path]] = []
        self._sent: dict[int, int] = {}
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)

    @property
    def num_bytes(self) -> int:
        """Bytes that were sent in all rounds."""
        return sum(self._sent.values())

    def bytes_of(self, round_num: int) -> int:
        """Bytes that were sent in one round."""
        return self._sent.get(round_num, 0)

    def has(self, client_id: str, round_num: int) -> bool:
        """Whether the shards of a device are those of this round."""
        return any((key.client_id, key.round_num) == (client_id, round_num) for key, _ in self._shards)

    def send_client(self, engine: TrainingEngine, part: ClientPart, round_num: int) -> None:
        """Extract and send all that a device uploads in a round (lines 22 to 30 of FedGKT's Algorithm 1)."""
        for split in SPLITS:
            self.send_split(engine, part, round_num, split)

    def send_split(self, engine: TrainingEngine, part: ClientPart, round_num: int, split: str) -> None:
        """Extract and send one split of a device's samples."""
        for shard in shards(engine, part, round_num, split):
            self.send(part, shard)

    def send(self, part: ClientPart, shard: Extracted) -> None:
        """Encode and keep one shard."""
        key, data = shard.key, shard.encode(part)
        num_bytes = len(wire_body(data, self._levels, compressed=self._config.compress).data)
        self._sent[key.round_num] = self._sent.get(key.round_num, 0) + num_bytes
        if self._folder is None:
            self._shards.append((key, data))
            return
        path = self._folder / f"{key.client_id}-{key.split}-{key.index:06d}.safetensors"
        path.write_bytes(data)
        self._shards.append((key, path))

    def forget(self, client_ids: frozenset[str]) -> None:
        """Drop the shards of some devices; the bytes that they sent remain counted."""
        self._shards = [(key, data) for key, data in self._shards if key.client_id not in client_ids]

    def source(self, split: str, client_ids: Collection[str] | None = None) -> ShardSource:
        """Give the samples of one split, of all devices or of these, in canonical order."""
        return ShardSource(
            (key.client_id, self._read(key, data))
            for key, data in self._shards
            if key.split == split and (client_ids is None or key.client_id in client_ids)
        )

    def _read(self, key: ShardKey, data: bytes | Path) -> FeatureShard:
        if isinstance(data, Path):
            return map_feature_shard(data, key, self._spec)
        return read_feature_shard(data, key, self._spec, check_values=False)
