"""What a device does again and again, as calls without arguments: training, extraction, packing, views."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_runtime import DeviceEngine
from gkt_core.bundle.manifest import Manifest
from gkt_core.data.augment import augmented_view
from gkt_core.wire.levels.transport import level_features, wire_body
from gkt_core.wire.shards import ShardKey, write_feature_shard

WORKLOADS = ("train_step", "extract", "pack", "augment")
ALPHA = 1.0


def make_workload(
    name: str, engine: DeviceEngine, manifest: Manifest, *, batch_size: int, codec: str
) -> Callable[[], object]:
    """Prepare one workload on random images; times hardly depend on the values.

    Args:
        name: ``train_step``: forward, loss with distillation, backward, optimizer; ``extract``: features
            and logits in eval mode; ``pack``: codec, safetensors and Zstandard for one shard of them;
            ``augment``: the views (crop, flip, float32) that both of the first two begin with.
        engine: The engine.
        manifest: What its bundle was made for.
        batch_size: Samples in one call.
        codec: Of ``pack``.
    """
    random = np.random.default_rng(0)
    size = manifest.image_size
    images = random.random((batch_size, 3, size, size), dtype=np.float32)
    labels = random.integers(manifest.num_classes, size=batch_size).astype(np.int64)
    logits = random.standard_normal((batch_size, manifest.num_classes), dtype=np.float32)
    if name == "train_step":
        return lambda: engine.train_step(images, labels, logits, ALPHA)
    if name == "extract":
        return lambda: engine.predict(images)
    if name == "augment":
        pixels = (255 * images.transpose(0, 2, 3, 1)).astype(np.uint8)
        sample_ids = np.arange(batch_size, dtype=np.int64)
        return lambda: augmented_view(
            pixels, sample_ids, seed=0, round_num=1, crop_padding=max(1, size // 8), horizontal_flip=True
        )
    features, client_logits = engine.predict(images)
    key, ids = ShardKey("device", 1, "train", 0), np.arange(batch_size, dtype=np.int64)
    levels = level_features(codec, manifest.feature_shape)

    def pack() -> bytes:
        shard = write_feature_shard(key, ids, features, client_logits, labels, codec)
        return wire_body(shard, levels, compressed=True).data

    return pack
