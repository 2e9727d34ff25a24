"""What a device sends in a round (lines 22 to 30 of Algorithm 1): features and logits, a shard at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.augment import to_float_nchw
from gkt_core.errors import ShardError
from gkt_core.rounds.client_part import ClientPart, draw_view
from gkt_core.rounds.engine import TrainingEngine
from gkt_core.wire.shards import ShardKey, write_feature_shard


@dataclass(frozen=True, slots=True)
class Extracted:
    """One shard as the network gives it, before noise and codec.

    Attributes:
        key: Where it belongs.
        sample_ids: ``[n] int64``.
        features: ``[n, C, H, W] float32``.
        client_logits: ``[n, classes] float32``.
        labels: ``[n] int64``.
        outside: ``[C] float32``, the feature of black; None where the server has no use for it.
    """

    key: ShardKey
    sample_ids: NDArray[np.int64]
    features: NDArray[np.float32]
    client_logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    outside: NDArray[np.float32] | None = None

    def encode(self, part: ClientPart) -> bytes:
        """Make the bytes that leave the device: noise on the features, then the codec.

        Raises:
            CodecError: Features cannot be encoded.
            ShardError: Logits are not finite.
        """
        features = part.noise.blur(self.features, self.sample_ids, self.key.round_num)
        return write_feature_shard(
            self.key,
            self.sample_ids,
            features,
            self.client_logits,
            self.labels,
            part.config.codec,
            self.outside,
            part.noise.label_privacy,
        )


def shards(
    engine: TrainingEngine, part: ClientPart, round_num: int, split: str, only: Sequence[int] | None = None
) -> Iterator[Extracted]:
    """Extract ``train`` or ``validation`` in eval mode (lines 23 to 29), by ascending sample id.

    Training samples go as the view of this round, which the soft labels will answer; validation samples as
    they are. ``only`` are the indexes of the shards that are wanted, in this order; all by default.

    Raises:
        ShardError: There is no shard of such an index.
    """
    samples, size, num = part.samples(split), part.config.shard_samples, part.num_shards(split)
    outside = _outside(engine, part) if part.config.crops_features else None
    for index in range(num) if only is None else only:
        if not 0 <= index < num:
            raise ShardError(f"shard {index} is wanted of {num}")
        rows = np.arange(index * size, min((index + 1) * size, len(samples)))
        if split == "train":
            images = draw_view(samples, rows, part.config, part.client_id, round_num)
        else:
            images = to_float_nchw(samples.images[rows])
        features, logits = engine.predict(images)
        key = ShardKey(part.client_id, round_num, split, index)
        yield Extracted(key, samples.sample_ids[rows], features, logits, samples.labels[rows], outside)


def _outside(engine: TrainingEngine, part: ClientPart) -> NDArray[np.float32]:
    """Compute the feature of black ``[C]``, far from any border; 0 where features leave with noise."""
    size = part.data.image_size
    features = engine.predict(np.zeros((1, 3, size, size), np.float32))[0][0]
    middle = features[:, features.shape[1] // 2, features.shape[2] // 2]
    # It is the same in every shard: noise on it would not hide it.
    return np.zeros_like(middle) if part.noise.is_on else middle
