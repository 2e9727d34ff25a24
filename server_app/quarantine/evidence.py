"""Reduce one device's upload to what the checks look at: a bounded sample of it, and a few numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from gkt_core.rounds.feature_source import ShardSource
from server_app.quarantine.views import Views

# Of each device: enough for every statistic here, and a small part of a round's work.
MAX_SAMPLES = 256
# Of these, so many are kept pixel by pixel.
_MAX_PATCHES = 128
# And of large features fewer, as all of a device's are decoded at once.
_MAX_BYTES = 128_000_000
_GRID = 4
_CONFIDENT = 0.9
_SAME = 1e-3  # of the spread of features
_FEWEST_CHANGES = 8
_SMALLEST_WITH_INSIDE = 6
_CONTENT = 0.01
_ARRAYS = ("sample_ids", "labels", "pooled", "patched", "patches", "mirrored")
_HALVES = ("pooled", "patches")
_NUMBERS = (
    *("scale", "zeros", "structure", "spread", "copies", "repeats", "logit_loss", "confidently_wrong"),
    *("padding_covariance", "image_covariance", "padded_samples"),
)
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Evidence:
    """A device's upload of one round and split, as the checks see it.

    Attributes:
        sample_ids: ``[n] int64``, at most :data:`MAX_SAMPLES`, ascending.
        labels: ``[n] int64``.
        pooled: ``[n, C, g, g] float32``, features averaged over a grid of at most 4 by 4 cells.
        patched: ``[m] int64``: which of the samples are kept as patches.
        patches: ``[m, C, h, w] float32``, the middle of these images (:meth:`Views.patches`).
        mirrored: ``[m] uint8``: 1 where that view was mirrored.
        scale: Root mean square of the features.
        zeros: Share of features that are zero.
        structure: How much more features of neighbouring pixels and of other channels go together than
            independent numbers would; 1 for independent ones.
        spread: Standard deviation of features within the channels.
        copies: Share of samples whose features are those of the sample before.
        repeats: The same, of samples whose view lies otherwise than the one before; 0 where none does.
        logit_loss: Mean cross entropy of the device's logits with its own labels.
        confidently_wrong: Share of samples whose logits give another class than the label a probability
            above 0.9.
        padding_covariance: Of neighbours where views are black (:meth:`Views.padding_trace`).
        image_covariance: Of neighbours where views show the image.
        padded_samples: Samples whose padding says something.
    """

    sample_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    pooled: NDArray[np.float32]
    patched: NDArray[np.int64]
    patches: NDArray[np.float32]
    mirrored: NDArray[np.uint8]
    scale: float
    zeros: float
    structure: float
    spread: float
    copies: float
    repeats: float
    logit_loss: float
    confidently_wrong: float
    padding_covariance: float
    image_covariance: float
    padded_samples: float

    def to_bytes(self) -> bytes:
        """Encode as a safetensors file."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _ARRAYS}
        for name in _HALVES:
            # What float16 cannot hold was never accepted as a past, or is as large as makes no difference.
            arrays[name] = np.clip(arrays[name], -6e4, 6e4).astype(np.float16)
        return save(arrays, metadata={"numbers": json.dumps(self.numbers())})

    def numbers(self) -> dict[str, float]:
        """The summary without the arrays."""
        return {name: float(getattr(self, name)) for name in _NUMBERS}

    @classmethod
    def from_file(cls, path: str) -> Self | None:
        """The inverse of :meth:`to_bytes`; None of a file of another version, which kept other things."""
        with safe_open(path, framework="numpy") as opened:
            numbers = json.loads(opened.metadata()["numbers"])
            if not {*_ARRAYS} <= {*opened.keys()} or not {*_NUMBERS} <= numbers.keys():
                return None
            arrays = {name: opened.get_tensor(name) for name in _ARRAYS}
        arrays |= {name: arrays[name].astype(np.float32) for name in _HALVES}
        return cls(**arrays, **{name: numbers[name] for name in _NUMBERS})


def gather_evidence(
    source: ShardSource, views_of: Callable[[str, NDArray[np.int64]], Views]
) -> dict[str, Evidence]:
    """The evidence of every device of a source, by client id.

    ``views_of`` says of a device and its samples ``[n] int64`` how their views lie.
    """
    evidence = {}
    most = min(MAX_SAMPLES, source.samples_within(_MAX_BYTES))
    for number, client_id in enumerate(source.client_ids):
        rows = np.flatnonzero(source.owners == number)
        # Spread evenly: a device with many samples sends them by ascending id, which may mean by class.
        chosen = rows[_spread(len(rows), most)]
        batch, sample_ids = source.gather(chosen), np.asarray(source.sample_ids[chosen])
        evidence[client_id] = summarise(
            sample_ids, batch.features, batch.client_logits, batch.labels, views_of(client_id, sample_ids)
        )
    return evidence


def _spread(num: int, most: int) -> NDArray[np.intp]:
    return np.linspace(0, num - 1, min(most, num)).astype(np.intp)


def summarise(
    sample_ids: NDArray[np.int64],
    features: NDArray[np.float32],
    client_logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    views: Views,
) -> Evidence:
    """Look at some samples of a device.

    Args:
        sample_ids: ``[n] int64``.
        features: ``[n, C, H, W] float32``, finite.
        client_logits: ``[n, classes] float32``, finite.
        labels: ``[n] int64``.
        views: How these samples' views lie.
    """
    logits = client_logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    confident = log_probabilities.max(axis=1) > np.log(_CONFIDENT)
    wrong = log_probabilities.argmax(axis=1) != labels
    spread = float(np.sqrt(np.var(features, axis=(0, 2, 3), dtype=np.float64).mean()))
    differences = np.abs(np.diff(features, axis=0)).max(axis=(1, 2, 3), initial=0.0)
    copied = differences <= _SAME * spread
    padding_covariance, image_covariance, padded_samples = views.padding_trace(features)
    patched = _spread(len(labels), _MAX_PATCHES)
    return Evidence(
        sample_ids=sample_ids,
        labels=labels.astype(np.int64),
        pooled=_pooled(features),
        patched=patched.astype(np.int64),
        patches=views.patches(features)[patched],
        mirrored=views.flip[patched].astype(np.uint8),
        scale=float(np.sqrt(np.mean(np.square(features, dtype=np.float64)))),
        zeros=float(np.mean(features == 0)),
        structure=_structure(features),
        spread=spread,
        copies=float(np.mean(copied)) if len(copied) else 0.0,
        repeats=_share(copied, views.change() & _has_content(features)[1:]),
        logit_loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        confidently_wrong=float(np.mean(confident & wrong)),
        padding_covariance=padding_covariance,
        image_covariance=image_covariance,
        padded_samples=padded_samples,
    )


def _share(these: NDArray[np.bool_], of: NDArray[np.bool_]) -> float:
    """How many of some are these, where there are enough to speak of."""
    return float(np.mean(these[of])) if of.sum() >= _FEWEST_CHANGES else 0.0


def _has_content(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """``[n]``: whether features differ inside the image, where what a network pads with plays no part."""
    inner = features[:, :, 2:-2, 2:-2] if min(features.shape[2:]) > _SMALLEST_WITH_INSIDE else features
    deviations = inner - inner.mean(axis=(2, 3), keepdims=True)
    overall = np.mean(np.square(features - features.mean(axis=(2, 3), keepdims=True)), axis=(1, 2, 3))
    return np.asarray(np.mean(np.square(deviations), axis=(1, 2, 3)) > _CONTENT * overall + _TINY)


def _pooled(features: NDArray[np.float32], grid: int = _GRID) -> NDArray[np.float32]:
    height, width = features.shape[2:]
    rows = np.array_split(np.arange(height), min(grid, height))
    columns = np.array_split(np.arange(width), min(grid, width))
    # Cell by cell: sizes need not be multiples of the grid.
    cells = [
        [features[:, :, r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean(axis=(2, 3)) for c in columns] for r in rows
    ]
    return np.ascontiguousarray(np.moveaxis(np.asarray(cells, np.float32), (0, 1), (2, 3)))


def _structure(features: NDArray[np.float32]) -> float:
    """Mean squared correlation of channels with each other and with their neighbours, times pixels.

    Independent numbers give 1, however they are distributed; what a convolution makes of anything, noise
    included, gives more, since neighbouring pixels and all channels see the same part of the image.
    """
    deviations = (features - features.mean(axis=(2, 3), keepdims=True)).transpose(1, 0, 2, 3)
    norms = np.sqrt(np.square(deviations, dtype=np.float64).mean(axis=(1, 2, 3)))
    deviations = deviations[norms > _TINY] / norms[norms > _TINY, None, None, None].astype(np.float32)
    channels, values = len(deviations), []
    for before, after in (
        (deviations, deviations),
        (deviations[:, :, 1:], deviations[:, :, :-1]),
        (deviations[..., 1:], deviations[..., :-1]),
    ):
        if channels == 0 or before[0].size == 0:
            continue
        flat, other = before.reshape(channels, -1), after.reshape(channels, -1)
        correlation = (flat @ other.T).astype(np.float64) / flat.shape[1]
        if before is not after:
            # Differences from a sample's own mean go against each other a little.
            correlation += np.eye(channels) / max(1, features[0, 0].size - 1)
        counted = ~np.eye(channels, dtype=bool) if before is after else np.ones((channels, channels), bool)
        values.append(flat.shape[1] * np.square(correlation[counted]))
    return float(np.concatenate(values).mean()) if values and np.concatenate(values).size else 0.0
