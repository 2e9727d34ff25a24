"""Reduce one device's upload to what the checks look at: a bounded sample of it, and a few numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from gkt_core.rounds.feature_source import ShardSource

# Of each device: enough for every statistic here, and a small part of a round's work.
MAX_SAMPLES = 256
_GRID = 4
_CONFIDENT = 0.9
_ARRAYS = ("sample_ids", "labels", "pooled")
_NUMBERS = ("scale", "zeros", "smoothness", "logit_loss", "confidently_wrong")
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Evidence:
    """A device's upload of one round, as the checks see it.

    Attributes:
        sample_ids: ``[n] int64``, at most :data:`MAX_SAMPLES`, ascending.
        labels: ``[n] int64``.
        pooled: ``[n, C, g, g] float32``, features averaged over a grid of at most 4 by 4 cells.
        scale: Root mean square of the features.
        zeros: Share of features that are zero.
        smoothness: Correlation of neighbouring pixels within a channel of a sample, -1..1: near 1 for what
            a convolution makes of an image, near 0 for noise.
        logit_loss: Mean cross entropy of the device's logits with its own labels.
        confidently_wrong: Share of samples whose logits give another class than the label a probability
            above 0.9.
    """

    sample_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    pooled: NDArray[np.float32]
    scale: float
    zeros: float
    smoothness: float
    logit_loss: float
    confidently_wrong: float

    def to_bytes(self) -> bytes:
        """Encode as a safetensors file."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _ARRAYS}
        # What float16 cannot hold was never accepted as a past, or is as large as makes no difference.
        arrays["pooled"] = np.clip(self.pooled, -6e4, 6e4).astype(np.float16)
        return save(arrays, metadata={"numbers": json.dumps(self.numbers())})

    def numbers(self) -> dict[str, float]:
        """The summary without the arrays."""
        return {name: float(getattr(self, name)) for name in _NUMBERS}

    @classmethod
    def from_file(cls, path: str) -> Evidence:
        """The inverse of :meth:`to_bytes`."""
        with safe_open(path, framework="numpy") as opened:
            sample_ids, labels, pooled = (opened.get_tensor(name) for name in _ARRAYS)
            # Earlier versions kept more of them.
            numbers = json.loads(opened.metadata()["numbers"])
        return cls(sample_ids, labels, pooled.astype(np.float32), *(numbers[name] for name in _NUMBERS))


def gather_evidence(source: ShardSource) -> dict[str, Evidence]:
    """The evidence of every device of a source, by client id."""
    evidence = {}
    for number, client_id in enumerate(source.client_ids):
        rows = np.flatnonzero(source.owners == number)
        # Spread evenly: a device with many samples sends them by ascending id, which may mean by class.
        chosen = rows[np.linspace(0, len(rows) - 1, min(MAX_SAMPLES, len(rows))).astype(np.intp)]
        batch = source.gather(chosen)
        evidence[client_id] = summarise(
            np.asarray(source.sample_ids[chosen]), batch.features, batch.client_logits, batch.labels
        )
    return evidence


def summarise(
    sample_ids: NDArray[np.int64],
    features: NDArray[np.float32],
    client_logits: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> Evidence:
    """Look at some samples of a device.

    Args:
        sample_ids: ``[n] int64``.
        features: ``[n, C, H, W] float32``, finite.
        client_logits: ``[n, classes] float32``, finite.
        labels: ``[n] int64``.
    """
    logits = client_logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    confident = log_probabilities.max(axis=1) > np.log(_CONFIDENT)
    wrong = log_probabilities.argmax(axis=1) != labels
    return Evidence(
        sample_ids=sample_ids,
        labels=labels.astype(np.int64),
        pooled=_pooled(features),
        scale=float(np.sqrt(np.mean(np.square(features, dtype=np.float64)))),
        zeros=float(np.mean(features == 0)),
        smoothness=_smoothness(features),
        logit_loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        confidently_wrong=float(np.mean(confident & wrong)),
    )


def _pooled(features: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = features.shape[2:]
    rows = np.array_split(np.arange(height), min(_GRID, height))
    columns = np.array_split(np.arange(width), min(_GRID, width))
    # Cell by cell: sizes need not be multiples of the grid.
    cells = [
        [features[:, :, r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean(axis=(2, 3)) for c in columns] for r in rows
    ]
    return np.ascontiguousarray(np.moveaxis(np.asarray(cells, np.float32), (0, 1), (2, 3)))


def _smoothness(features: NDArray[np.float32]) -> float:
    deviations = features - features.mean(axis=(2, 3), keepdims=True)
    variance = float(np.mean(np.square(deviations, dtype=np.float64)))
    down = float(np.mean(deviations[:, :, 1:] * deviations[:, :, :-1], dtype=np.float64))
    right = float(np.mean(deviations[:, :, :, 1:] * deviations[:, :, :, :-1], dtype=np.float64))
    return (down + right) / 2 / max(variance, _TINY)
