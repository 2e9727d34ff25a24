"""Poisoned uploads: what one device sends instead of what it computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from gkt_core.algorithms.simulation.uploads import Uploads
from gkt_core.config.run_config import RunConfig
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_shards import Extracted
from gkt_core.wire.shards import ShardSpec

ATTACKS = (
    *("random_features", "shifted_labels", "hostile_logits"),
    *("replayed_features", "constant_features", "poisoned_validation"),
)
# Of hostile logits: what the softmax makes certainty of, without leaving the range of trained networks.
_LOGIT = 20.0


class PoisonedUploads(Uploads):
    """Uploads of a round in which one device poisons its own.

    Args:
        spec: Of the run's shards.
        config: The run's.
        folder: As for :class:`Uploads`.
        attack: One of :data:`ATTACKS`: noise of the features' own mean and spread, each label moved to the
            next class, logits that are certain of the next class, the features of the shard's next sample,
            the shard's mean for every sample, or moved labels of the validation samples alone.
        attacker: The device; empty for nobody.
    """

    def __init__(
        self, spec: ShardSpec, config: RunConfig, folder: Path | None, *, attack: str, attacker: str
    ) -> None:
        self._attack, self._attacker, self._num_classes = attack, attacker, spec.num_classes
        self._seed = config.seed
        super().__init__(spec, config, folder)

    def send(self, part: ClientPart, shard: Extracted) -> None:
        """Encode and keep one shard, poisoned if it is the attacker's."""
        super().send(part, self._poisoned(shard) if part.client_id == self._attacker else shard)

    def _poisoned(self, shard: Extracted) -> Extracted:
        validation = shard.key.split == "validation"
        if self._attack == "shifted_labels" or (validation and self._attack == "poisoned_validation"):
            return replace(shard, labels=(shard.labels + 1) % self._num_classes)
        if self._attack == "hostile_logits":
            logits = np.full_like(shard.client_logits, -_LOGIT / 2)
            logits[np.arange(len(logits)), (shard.labels + 1) % self._num_classes] = _LOGIT / 2
            return replace(shard, client_logits=logits)
        if self._attack == "replayed_features":
            return replace(shard, features=np.roll(shard.features, 1, axis=0))
        if self._attack == "constant_features":
            mean = shard.features.mean(axis=0, keepdims=True)
            return replace(shard, features=np.repeat(mean, len(shard.features), axis=0))
        if self._attack == "poisoned_validation":
            return shard
        rng = np.random.default_rng([self._seed, 53, shard.key.round_num, shard.key.index])
        noise = rng.normal(shard.features.mean(), shard.features.std(), shard.features.shape)
        return replace(shard, features=np.maximum(noise, 0).astype(np.float32))
