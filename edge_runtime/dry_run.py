"""What would leave this device, in words and bytes, without sending any of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_runtime.engines.base import open_engine
from edge_runtime.trust.endless import EndlessWatch
from edge_runtime.trust.features import GuardedEngine
from gkt_core.bundle.manifest import Bundle
from gkt_core.bundle.tap import described_tap
from gkt_core.config.run_config import RunConfig
from gkt_core.config.upload_schedule import NEVER
from gkt_core.data.private_data import PrivateData
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_shards import shards
from gkt_core.rounds.label_privacy import chance_kept, with_private_labels
from gkt_core.wire.feature_noise import FeatureNoise, new_key
from gkt_core.wire.levels.transport import level_features, wire_body


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would leave in a round that has an upload; all samples do.

    Attributes:
        engine: What would train, and made the features below.
        tap: Name and shape of what makes the features, and bits of each number as it leaves.
        leaves: Kinds of data that would be sent, in words.
        stays: Kinds of data that would not.
        tensors: Shape and dtype of each tensor of one shard.
        shard_bytes: The first training shard as it would be sent.
        round_bytes: All shards of a round, estimated from that shard.
        compressed: Whether it is compressed.
        encoding: How: ``zstd``, ``gkt-levels`` (if the server takes it), or empty.
        feature_clip: What features would be limited to; 0 for no limit.
        feature_noise: Standard deviation of the noise on them; 0 for none.
        label_privacy: Epsilon of the labels; 0 for labels as they are.
        feature_spread: Standard deviation of that shard's features before both, to compare the noise with.
    """

    engine: str
    tap: str
    leaves: list[str]
    stays: list[str]
    tensors: dict[str, str]
    num_train_samples: int
    num_validation_samples: int
    shard_bytes: int
    round_bytes: int
    run_bytes: int
    rounds: int
    codec: str
    compressed: bool
    encoding: str
    feature_clip: float
    feature_noise: float
    label_privacy: float
    feature_spread: float


def dry_run(
    bundle: Bundle,
    data: PrivateData,
    config: RunConfig,
    *,
    client_id: str,
    num_threads: int,
    engine: str | None = None,
    noise: FeatureNoise | None = None,
    watch: EndlessWatch | None = None,
) -> DryRun:
    """Make the first shard of round 1 exactly as it would be sent, and measure it.

    Raises:
        ArtifactError: The bundle is not for this engine.
        UnsafeModelError: Its features are the images, or its graphs would do what nobody agreed to.
    """
    noise = replace(noise or FeatureNoise(), key=new_key())
    num_classes = bundle.manifest.num_classes
    own = with_private_labels(data, noise, num_classes)
    part = ClientPart(client_id, own, config, num_classes, noise)
    opened = GuardedEngine(
        open_engine(
            bundle, checkpoint=None, num_threads=num_threads, engine=engine, learning_rate=config.edge_lr
        ),
        bundle.manifest,
        watch,
    )
    shard = next(shards(opened, part, 1, "train"))
    levels = level_features(config.codec, bundle.manifest.feature_shape)
    body = wire_body(shard.encode(part), levels, compressed=config.compress)
    shard_bytes = len(body.data)
    num_samples = len(data.train) + len(data.validation)
    round_bytes = round(shard_bytes / len(shard.labels) * num_samples)
    spread, crops = float(shard.features.std()), int(config.crops_features)
    arrays = {name: getattr(shard, name) for name in ("sample_ids", "features", "client_logits", "labels")}
    if shard.outside is not None:
        arrays["features_outside"] = shard.outside
    tensors = {name: f"{array.dtype} {list(array.shape)}" for name, array in arrays.items()}
    return DryRun(
        engine=opened.name,
        tap=described_tap(bundle.manifest, config.codec),
        leaves=[
            f"feature maps: {_what(opened)}. They show much of the image" + _blurring(noise, spread),
            *(["the feature of black, one vector: what the server pads cropped features with"] * crops),
            *(["the extractor's weights, which the server averages"] * (config.share_extractor != NEVER)),
            f"labels of all training and validation images, {_labels(noise, num_classes)}",
            "the device's predictions (logits) for them",
            "sample ids (numbers), sample counts, training loss, accuracy and speed",
            "the device's name, with a secret that keeps it, and the names of the classes, as they are",
        ],
        stays=["the images themselves", _staying(config)],
        tensors=tensors | {"features": f"{tensors['features']}, sent as {config.codec}"},
        num_train_samples=len(data.train),
        num_validation_samples=len(data.validation),
        shard_bytes=shard_bytes,
        round_bytes=round_bytes,
        run_bytes=round_bytes * config.upload_schedule.num_uploads(config.rounds),
        rounds=config.rounds,
        codec=config.codec,
        compressed=config.compress,
        encoding=body.encoding,
        feature_clip=noise.clip,
        feature_noise=noise.noise,
        label_privacy=noise.label_privacy,
        feature_spread=spread,
    )


def _labels(noise: FeatureNoise, num_classes: int) -> str:
    if not noise.label_privacy:
        return "as they are"
    kept = chance_kept(noise.label_privacy, num_classes)
    return (
        f"each exchanged for another with chance {1 - kept:.0%} (epsilon {noise.label_privacy:g}), once for "
        "the whole run"
    )


def _staying(config: RunConfig) -> str:
    if config.share_extractor == NEVER:
        return "all weights of the device's network, extractor included"
    return "the weights of the device's network behind its extractor"


def _what(engine: GuardedEngine) -> str:
    if engine.is_known:
        return f"{engine.known_as} for every image, which this device has computed itself as well"
    return f"for every image, what the first layers make of it; {engine.stranger()}"


def _blurring(noise: FeatureNoise, spread: float) -> str:
    if not noise.is_on:
        return ""
    parts = [f"limited to -{noise.clip:g}..{noise.clip:g}"] if noise.clip else []
    if noise.noise:
        share = f", {noise.noise / spread:.2g} times their own" if spread else ""
        parts.append(f"with Gaussian noise of deviation {noise.noise:g}{share}")
    rest = "Predictions travel" if noise.label_privacy else "Labels and predictions travel"
    return f"; {' and '.join(parts)}. {rest} as they are"
