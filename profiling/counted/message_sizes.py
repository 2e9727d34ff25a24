"""Sizes of the wire's messages to the byte, by writing such messages with the product's own code."""

from __future__ import annotations

import functools

import numpy as np

from gkt_core.wire.codec import encoded_layout
from gkt_core.wire.protocol import RoundReport, to_json
from gkt_core.wire.shards import ShardKey, ShardSpec, SoftLabels, write_feature_shard, write_soft_labels

# The tensors of a feature shard beside the features, in bytes a sample.
SAMPLE_ID_BYTES = 8
LABEL_BYTES = 8
LOGIT_BYTES = 4
# One report with full-length numbers; the real ones differ by a few digits.
TYPICAL_REPORT = RoundReport(
    num_train_shards=5,
    num_validation_shards=1,
    num_examples=323,
    loss=2.0 / 3,
    accuracy=2.0 / 3,
    train_seconds=2.0 / 3,
    extract_seconds=2.0 / 3,
    images_per_second=2000.0 / 3,
)


def encoded_feature_bytes(codec: str, feature_shape: tuple[int, int, int]) -> int:
    """Bytes of one sample's features as a codec gives them, before compression.

    Raises:
        CodecError: The codec is unknown or cannot pack this shape.
    """
    dtype, sample_shape = encoded_layout(codec, feature_shape)
    return int(np.prod(sample_shape)) * dtype.itemsize


def payload_bytes(num_samples: int, spec: ShardSpec) -> dict[str, int]:
    """Count what the tensors of one feature shard take, by what they are; no header among them."""
    return {
        "features": num_samples * encoded_feature_bytes(spec.codec, spec.feature_shape),
        "client_logits": num_samples * LOGIT_BYTES * spec.num_classes,
        "labels": num_samples * LABEL_BYTES,
        "sample_ids": num_samples * SAMPLE_ID_BYTES,
        "features_scale and features_offset": 2 * 4 * spec.feature_shape[0],
    }


def feature_shard_bytes(key: ShardKey, num_samples: int, spec: ShardSpec) -> int:
    """Size of one shard before compression; no value in it changes that.

    Args:
        key: Where it belongs; its numbers stand in the header.
        num_samples: Samples in it.
        spec: What every shard of the run looks like.
    """
    return _shard_bytes(
        len(key.client_id), len(str(key.round_num)), key.split, len(str(key.index)), num_samples, spec
    )


@functools.lru_cache(maxsize=1024)
def _shard_bytes(
    id_length: int, round_digits: int, split: str, index_digits: int, num_samples: int, spec: ShardSpec
) -> int:
    key = ShardKey("x" * id_length, 10 ** (round_digits - 1), split, 10 ** (index_digits - 1))
    shard = write_feature_shard(
        key,
        np.arange(num_samples, dtype=np.int64),
        np.zeros((num_samples, *spec.feature_shape), np.float32),
        np.zeros((num_samples, spec.num_classes), np.float32),
        np.zeros(num_samples, np.int64),
        spec.codec,
    )
    return len(shard)


@functools.lru_cache(maxsize=1024)
def soft_labels_bytes(client_id: str, round_num: int, num_samples: int, num_classes: int) -> int:
    """Size of the server's answer to one device; it is never compressed."""
    soft_labels = SoftLabels(
        np.arange(num_samples, dtype=np.int64), np.zeros((num_samples, num_classes), np.float32)
    )
    return len(write_soft_labels(client_id, round_num, soft_labels))


def report_bytes() -> int:
    """Size of one device's report of a round, within a few digits."""
    return len(to_json(TYPICAL_REPORT))
