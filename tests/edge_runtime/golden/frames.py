"""Shards of few bits and their frames of levels, for the golden file: what every language writes."""

from __future__ import annotations

import hashlib
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import CODEC_BITS, PACKED_CODECS
from gkt_core.wire.levels import frame
from gkt_core.wire.levels.frame import read_frame, write_frame
from gkt_core.wire.levels.transport import level_features
from gkt_core.wire.shard_file import parse
from gkt_core.wire.shards import ShardKey, write_feature_shard

CLASSES, MOST_BLOCK = 3, 1 << 17
# Several lanes a channel, a lane a channel, several channels a lane; and widths that symbols do not fill.
SHAPES = ((2, 64, 32), (3, 16, 12), (4, 4, 8), (2, 4, 6), (3, 5, 3))


def stored(data: bytes) -> bytes:
    """A Zstandard frame of raw blocks (RFC 8878): every compressor's bytes differ, these do not."""
    blocks = [data[begin : begin + MOST_BLOCK] for begin in range(0, len(data), MOST_BLOCK)] or [b""]
    heads = [len(block) << 3 | (number == len(blocks)) for number, block in enumerate(blocks, start=1)]
    parts = [head.to_bytes(3, "little") + block for head, block in zip(heads, blocks, strict=True)]
    return b"".join((b"\x28\xb5\x2f\xfd\xa0", len(data).to_bytes(4, "little"), *parts))


def content(
    num: int, shape: tuple[int, int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Ids, features, logits and labels that every machine has alike; of a ReLU, and smooth along a row."""
    count = num * int(np.prod(shape))
    waves = np.abs((np.arange(count, dtype=np.int64) * 13) % 509 - 254) - (np.arange(count) // 97) % 131
    features = (np.maximum(waves, 0) / 64).astype(np.float32).reshape(num, *shape)
    logits = ((np.arange(num * CLASSES) % 7) / 8).astype(np.float32).reshape(num, CLASSES)
    numbers = np.arange(num, dtype=np.int64)
    return numbers * 11, features, logits, numbers % CLASSES


def frames() -> list[dict[str, Any]]:
    """Each codec with each shape: hashes of the shard and of its frame, which reads back to the shard."""
    cases = []
    for codec in PACKED_CODECS:
        for shape in SHAPES:
            if codec == "uint4" and shape[1] * shape[2] % 2:
                continue
            shard = write_feature_shard(ShardKey("client-a", 3, "train", 7), *content(5, shape), codec)
            case: dict[str, Any] = {
                "codec": codec,
                "bits": CODEC_BITS[codec],
                "shape": list(shape),
                "shard_sha256": hashlib.sha256(shard).hexdigest(),
                "frame": None,
            }
            if levels := level_features(codec, shape):
                whole = np.frombuffer(shard, np.uint8)
                begin = parse(whole)[0]["features"].ctypes.data - whole.ctypes.data
                with mock.patch.object(frame, "compress", stored):
                    coded = write_frame(shard, begin, 5, levels)
                assert read_frame(coded, levels, 1 << 24) == shard
                case["frame"] = {
                    "mode": coded[6],
                    "num_bytes": len(coded),
                    "sha256": hashlib.sha256(coded).hexdigest(),
                }
            cases.append(case)
    return cases
