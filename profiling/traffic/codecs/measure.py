"""Bytes and speed of the levels' coder beside Zstandard, on features of trained networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.datasets import load_dataset
from gkt_core.wire.codec import decode, encode
from gkt_core.wire.compression import compress, decompress
from gkt_core.wire.levels.frame import LevelFeatures, read_frame
from gkt_core.wire.levels.transport import WireBody, level_features, wire_body
from gkt_core.wire.protocol import LEVELS
from gkt_core.wire.shards import ShardKey, ShardSpec, write_feature_shard
from profiling.frame.measurement import Announce
from profiling.privacy.uploaded import extract_features, trained_edge_network
from profiling.traffic.codecs.options import CodecsOptions

Features = NDArray[np.float32]
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Coding:
    """Features of one tap in one number of bits.

    Attributes:
        network: Whose tap.
        codec: In how many bits.
        feature_error: What rounding changes, relative to the features.
        packed_bytes: Of a sample's levels, before anything makes them smaller.
        zstd_bytes: Of a sample as it travels, logits and all, with Zstandard.
        levels_bytes: The same with coded levels.
        encode_mbps: Millions of bytes of float32 features that become coded shards in a second.
        decode_mbps: The same back, to shards.
        zstd_encode_mbps: As ``encode_mbps``, with Zstandard.
    """

    network: str
    codec: str
    feature_error: float
    packed_bytes: int
    zstd_bytes: float
    levels_bytes: float
    encode_mbps: float
    decode_mbps: float
    zstd_encode_mbps: float


def measure_codecs(options: CodecsOptions, announce: Announce) -> dict[str, Any]:
    """Train each network on some images, and code the features of others.

    Raises:
        DatasetError: The dataset cannot be read.
    """
    dataset = load_dataset(
        options.dataset,
        image_size=options.image_size,
        limit=options.limit,
        seed=options.seed,
        data_root=options.data_root,
    )
    codings: list[Coding] = []
    shapes = {}
    for name in options.networks:
        announce(f"training {name}")
        network = trained_edge_network(
            name,
            dataset.x_train,
            dataset.y_train,
            num_classes=len(dataset.class_names),
            epochs=options.epochs,
            seed=options.seed,
        )
        features, logits = extract_features(network, dataset.x_test[: options.num_images])
        shapes[name] = list(features.shape[1:])
        for codec in options.codecs:
            announce(f"coding {name} as {codec}")
            codings.append(_coding(name, codec, features, logits, options))
    return {
        "shapes": shapes,
        "image_size": int(dataset.x_test.shape[1]),
        "num_images": min(options.num_images, len(dataset.x_test)),
        "codings": [asdict(each) for each in codings],
    }


def _coding(name: str, codec: str, features: Features, logits: Features, options: CodecsOptions) -> Coding:
    shape: tuple[int, int, int] = (features.shape[1], features.shape[2], features.shape[3])
    levels = level_features(codec, shape)
    most = ShardSpec(codec, shape, logits.shape[1], options.shard_samples).max_bytes
    seconds = dict.fromkeys(("encode", "decode", "zstd"), 0.0)
    sizes = dict.fromkeys(("levels", "zstd"), 0)
    for index, rows in enumerate(_cuts(len(features), options.shard_samples)):
        ids = np.arange(rows.start, rows.stop)
        write = partial(
            write_feature_shard,
            ShardKey("device", 1, "train", index),
            ids,
            features[rows],
            logits[rows],
            np.zeros(len(ids), np.int64),
            codec,
        )
        shard = write()
        coded, took = _fastest(partial(_coded, write, levels), options.repeats)
        seconds["encode"] += took
        squeezed, took = _fastest(partial(_squeezed, write), options.repeats)
        seconds["zstd"] += took
        back, took = _fastest(partial(_read, coded, levels, most), options.repeats)
        seconds["decode"] += took
        assert back == shard, f"{name} as {codec}: shard {index} came out as another one"
        sizes["levels"] += len(coded.data)
        sizes["zstd"] += len(squeezed)
    rounded = decode(encode(features, codec), shape).astype(np.float64)
    total = float((features.astype(np.float64) ** 2).sum())
    wrong = float(((rounded - features) ** 2).sum())
    megabytes, num = features.nbytes / 1e6, len(features)
    return Coding(
        network=name,
        codec=codec,
        feature_error=float(np.sqrt(wrong / total)) if total else 0.0,
        packed_bytes=int(encode(features[:1], codec).values.nbytes),
        zstd_bytes=sizes["zstd"] / num,
        levels_bytes=sizes["levels"] / num,
        encode_mbps=megabytes / seconds["encode"],
        decode_mbps=megabytes / seconds["decode"],
        zstd_encode_mbps=megabytes / seconds["zstd"],
    )


def _coded(write: Callable[[], bytes], levels: LevelFeatures | None) -> WireBody:
    return wire_body(write(), levels, compressed=True)


def _squeezed(write: Callable[[], bytes]) -> bytes:
    return compress(write())


def _read(body: WireBody, levels: LevelFeatures | None, max_bytes: int) -> bytes:
    if levels is None or body.encoding != LEVELS:
        return decompress(body.data, max_bytes)
    return read_frame(body.data, levels, max_bytes)


def _fastest(call: Callable[[], ResultT], repeats: int) -> tuple[ResultT, float]:
    """Call some times; the result, and the seconds of the fastest call."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - started)
    return result, min(times)


def _cuts(num: int, size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + size, num)) for begin in range(0, num, size))
