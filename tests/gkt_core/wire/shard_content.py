"""Fixed shards, the same bits on every machine, for the tests that read, spoil and compare them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import CODECS
from gkt_core.wire.shards import ShardKey, ShardSpec, SoftLabels, write_feature_shard, write_soft_labels

KEY = ShardKey("client-000", 3, "train", 7)
SHAPE = (2, 4, 4)
CLASSES = 5
SAMPLE_IDS = np.array([11, 4, 900, 5], np.int64)


def spec(codec: str, **changes: Any) -> ShardSpec:
    """What the reader of these shards expects."""
    return ShardSpec(
        **{"codec": codec, "feature_shape": SHAPE, "num_classes": CLASSES, "max_samples": 8, **changes}
    )


def content() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Features, logits and labels that every machine computes to the same bits."""
    features = (np.arange(4 * 32, dtype=np.float32).reshape(4, *SHAPE) % 17) / 4
    logits = np.arange(4 * CLASSES, dtype=np.float32).reshape(4, CLASSES) / 8 - 1
    return features.astype(np.float32), logits.astype(np.float32), np.array([0, 4, 2, 2], np.int64)


def shard_bytes(codec: str = "fp32") -> bytes:
    """A valid shard."""
    features, logits, labels = content()
    return write_feature_shard(KEY, SAMPLE_IDS, features, logits, labels, codec)


def soft_label_bytes() -> bytes:
    """Soft labels of the same samples."""
    return write_soft_labels("client-000", 3, SoftLabels(SAMPLE_IDS, content()[1]))


def digests() -> dict[str, str]:
    """SHA-256 of each fixed shard; also called in a fresh process."""
    made = {codec: shard_bytes(codec) for codec in CODECS} | {"soft_labels": soft_label_bytes()}
    return {name: hashlib.sha256(data).hexdigest() for name, data in made.items()}
