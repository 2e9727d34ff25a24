"""Shards: what travels between device and server, in safetensors, never pickle.

A feature shard holds some samples of one device, one round and one split:

========================  ==========================  ============================================
tensor                    dtype, shape                meaning
========================  ==========================  ============================================
``sample_ids``            int64 ``[n]``               unique within the device
``features``              by codec, ``[n, ...]``      see :mod:`gkt_core.wire.codec`
``features_scale``        float32 ``[C]``             step between two levels of a channel
``features_offset``       float32 ``[C]``             value of level 0 of a channel
``client_logits``         float32 ``[n, classes]``    the device's raw logits
``labels``                int64 ``[n]``
``features_outside``      float32 ``[C]``             the feature of black, which lies around an
                                                      image; only where the server crops features
========================  ==========================  ============================================

A soft-label shard holds ``sample_ids`` and ``server_logits`` (float32 ``[n, classes]``). The single
metadata key ``gkt`` is a JSON object with sorted keys: equal content is equal bytes. Everything read is
checked against the :class:`ShardSpec` of the run before it is used.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import CodecError, ShardError
from gkt_core.wire.codec import EncodedFeatures, check_scales, decode, encode, encoded_layout, greatest_value
from gkt_core.wire.shard_checks import (
    check_layout,
    check_magnitude,
    check_metadata,
    count_samples,
    label_epsilon_of,
    refuse_larger,
)
from gkt_core.wire.shard_file import MAX_HEADER_BYTES, map_file, parse, serialise

SPLITS = ("train", "validation")
# More than the header of any feature shard takes; what is read may have a longer one.
_HEADER_BYTES = 2048


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """What every shard of a run must look like.

    Attributes:
        codec: How features are encoded.
        feature_shape: ``(C, H, W)`` of one sample.
        num_classes: Width of the logits; labels are below it.
        max_samples: Samples in one shard at most.
        has_outside: Whether the feature of black comes with the samples.
        most_feature: Greatest magnitude of a feature; any that is finite by default.
        most_logit: The same of the device's logits.
    """

    codec: str
    feature_shape: tuple[int, int, int]
    num_classes: int
    max_samples: int
    has_outside: bool = False
    most_feature: float = math.inf
    most_logit: float = math.inf

    @property
    def max_bytes(self) -> int:
        """Size that no valid shard exceeds, uncompressed."""
        return self._sample_bytes * self.max_samples + self._channel_bytes + 8 + MAX_HEADER_BYTES

    def samples_within(self, num_bytes: int) -> int:
        """How many samples a shard of so many bytes may hold, uncompressed; at least one."""
        rest = num_bytes - self._channel_bytes - 8 - _HEADER_BYTES
        return max(1, rest // self._sample_bytes)

    @property
    def _channel_bytes(self) -> int:
        return (12 if self.has_outside else 8) * self.feature_shape[0]

    @property
    def _sample_bytes(self) -> int:
        dtype, sample_shape = encoded_layout(self.codec, self.feature_shape)
        return int(np.prod(sample_shape)) * dtype.itemsize + 4 * self.num_classes + 16


@dataclass(frozen=True, slots=True)
class ShardKey:
    """Where a shard belongs.

    Attributes:
        client_id: The device.
        round_num: The round, from 1.
        split: ``train`` or ``validation``.
        index: Number of the shard within the split, from 0.
    """

    client_id: str
    round_num: int
    split: str
    index: int

    def metadata(self) -> dict[str, Any]:
        """Give the key as it stands in the file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FeatureShard:
    """A validated feature shard; arrays may be read-only views of a file.

    Attributes:
        sample_ids: ``[n] int64``.
        encoded: The features as they travelled.
        client_logits: ``[n, classes] float32``.
        labels: ``[n] int64``.
        feature_shape: ``(C, H, W)`` of one sample.
        outside: ``[C] float32``, the feature of black; None in a run that has no use for it.
        label_epsilon: Of randomised labels (:mod:`gkt_core.rounds.label_privacy`); 0 for labels as they are.
    """

    sample_ids: NDArray[np.int64]
    encoded: EncodedFeatures
    client_logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    feature_shape: tuple[int, int, int]
    outside: NDArray[np.float32] | None = None
    label_epsilon: float = 0.0

    def features(self, rows: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.float32]:
        """Decode some rows to ``[k, C, H, W] float32``; only those rows are read."""
        return decode(replace(self.encoded, values=self.encoded.values[rows]), self.feature_shape)


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """The server's answer for one device and one round.

    Attributes:
        sample_ids: ``[n] int64``.
        server_logits: ``[n, classes] float32``, raw.
    """

    sample_ids: NDArray[np.int64]
    server_logits: NDArray[np.float32]

    def for_samples(self, sample_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Look up logits ``[k, classes] float32`` by sample id ``[k] int64``, never by position.

        Raises:
            ShardError: A sample has no soft label.
        """
        missing = np.setdiff1d(sample_ids, self.sample_ids)
        if missing.size:
            raise ShardError(f"no soft labels came for {missing.size} samples, first {missing[:3].tolist()}")
        order = np.argsort(self.sample_ids, kind="stable")
        return self.server_logits[order[np.searchsorted(self.sample_ids, sample_ids, sorter=order)]]


def write_feature_shard(
    key: ShardKey,
    sample_ids: NDArray[np.int64],
    features: NDArray[np.float32],
    client_logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    codec: str,
    outside: NDArray[np.float32] | None = None,
    label_epsilon: float = 0.0,
) -> bytes:
    """Encode one feature shard of ``features [n, C, H, W] float32``; see :class:`FeatureShard` for the rest.

    Raises:
        CodecError: Features cannot be encoded.
        ShardError: Logits are not finite.
    """
    if not (np.isfinite(client_logits).all() and (outside is None or np.isfinite(outside).all())):
        raise ShardError("logits hold NaN or infinity: the local training diverged, lower edge_lr")
    encoded = encode(features, codec)
    tensors: dict[str, NDArray[Any]] = {
        "sample_ids": sample_ids.astype(np.int64),
        "features": encoded.values,
        "features_scale": encoded.scale,
        "features_offset": encoded.offset,
        "client_logits": client_logits.astype(np.float32),
        "labels": labels.astype(np.int64),
    }
    if outside is not None:
        tensors["features_outside"] = outside.astype(np.float32)
    # Only where there is one: a shard without is the same as it was in earlier versions.
    private = {"label_epsilon": label_epsilon} if label_epsilon else {}
    return serialise(tensors, {"kind": "features", "codec": codec, **key.metadata(), **private})


def write_soft_labels(client_id: str, round_num: int, soft_labels: SoftLabels) -> bytes:
    """Encode the server's answer to one device."""
    tensors: dict[str, NDArray[Any]] = {
        "sample_ids": soft_labels.sample_ids.astype(np.int64),
        "server_logits": soft_labels.server_logits.astype(np.float32),
    }
    return serialise(tensors, {"kind": "soft_labels", "client_id": client_id, "round_num": round_num})


def read_feature_shard(
    data: bytes | NDArray[np.uint8],
    key: ShardKey,
    spec: ShardSpec,
    *,
    check_values: bool = True,
    largest: float = math.inf,
) -> FeatureShard:
    """Read and validate one feature shard without copying it.

    Args:
        data: The file's bytes, or a ``uint8`` memory map of it.
        key: Where the shard must belong.
        spec: What this run expects.
        check_values: Also look at every value; ``False`` for a shard that was checked when it arrived.
        largest: What is known of the greatest magnitude of any four bytes behind the header, read as a float;
            features are looked at again only if they lie elsewhere, or that is too much.

    Raises:
        ShardError: Anything differs from what this run expects; the message says what.
    """
    tensors, metadata = parse(data)
    check_metadata(metadata, {"kind": "features", "codec": spec.codec, **key.metadata()})
    num = count_samples(tensors, spec.max_samples)
    dtype, sample_shape = encoded_layout(spec.codec, spec.feature_shape)
    channels = spec.feature_shape[0]
    layout: dict[str, tuple[str, tuple[int, ...]]] = {
        "sample_ids": ("int64", (num,)),
        "features": (dtype.name, (num, *sample_shape)),
        "features_scale": ("float32", (channels,)),
        "features_offset": ("float32", (channels,)),
        "client_logits": ("float32", (num, spec.num_classes)),
        "labels": ("int64", (num,)),
    }
    if spec.has_outside:
        layout["features_outside"] = ("float32", (channels,))
    check_layout(tensors, layout)
    features, scale, offset = (tensors[name] for name in ("features", "features_scale", "features_offset"))
    sample_ids, logits, labels = (tensors[name] for name in ("sample_ids", "client_logits", "labels"))
    encoded = EncodedFeatures(spec.codec, features, scale, offset)
    outside = tensors.get("features_outside")
    epsilon = label_epsilon_of(metadata)
    shard = FeatureShard(sample_ids, encoded, logits, labels, spec.feature_shape, outside, epsilon)
    if check_values:
        # Relative to the file: a header of odd length would put floats between the words that were seen.
        places = (shard.encoded.values.ctypes.data - np.frombuffer(data, np.uint8).ctypes.data) % 4
        known = spec.codec == "fp32" and places == 0 and math.isfinite(largest)
        _check_values(shard, spec, largest=largest if known else math.inf)
    return shard


def _check_values(shard: FeatureShard, spec: ShardSpec, *, largest: float) -> None:
    try:
        check_scales(shard.encoded, spec.feature_shape[0])
    except CodecError as error:
        raise ShardError(str(error)) from error
    check_magnitude("client_logits", shard.client_logits, spec.most_logit)
    if shard.encoded.values.dtype.kind != "f":
        refuse_larger("features", greatest_value(shard.encoded), spec.most_feature)
    elif not (math.isfinite(largest) and largest <= spec.most_feature):
        check_magnitude("features", shard.encoded.values, spec.most_feature)
    if shard.outside is not None:
        check_magnitude("features_outside", shard.outside, spec.most_feature)
    outside = shard.labels[(shard.labels < 0) | (shard.labels >= spec.num_classes)]
    if outside.size:
        raise ShardError(f"labels hold {int(outside[0])}, this run expects 0 to {spec.num_classes - 1}")


def most_soft_label_bytes(num_samples: int, num_classes: int) -> int:
    """Say what the answer for so many samples may have, which are those of the upload that it answers."""
    return 8 + MAX_HEADER_BYTES + num_samples * (8 + 4 * num_classes)


def read_soft_labels(data: bytes, client_id: str, round_num: int, num_classes: int) -> SoftLabels:
    """Read and validate the server's answer.

    Raises:
        ShardError: Anything differs from what this run expects.
    """
    tensors, metadata = parse(data)
    check_metadata(metadata, {"kind": "soft_labels", "client_id": client_id, "round_num": round_num})
    num = count_samples(tensors, None)
    check_layout(tensors, {"sample_ids": ("int64", (num,)), "server_logits": ("float32", (num, num_classes))})
    if not np.isfinite(tensors["server_logits"]).all():
        raise ShardError("server_logits hold NaN or infinity: the server diverged, lower server_lr")
    return SoftLabels(tensors["sample_ids"], tensors["server_logits"])


def map_feature_shard(
    path: Path, key: ShardKey, spec: ShardSpec, *, check_values: bool = False, largest: float = math.inf
) -> FeatureShard:
    """Memory-map a stored shard: its features are read from disk when rows are asked for.

    The arguments are those of :func:`read_feature_shard`, which reads it.

    Raises:
        ShardError: The file cannot be read or is not the expected shard.
    """
    try:
        mapped = map_file(path, is_read_now=check_values and not math.isfinite(largest))
    except OSError as error:
        raise ShardError(f"cannot read the shard {path}: {error}") from error
    return read_feature_shard(mapped, key, spec, check_values=check_values, largest=largest)
