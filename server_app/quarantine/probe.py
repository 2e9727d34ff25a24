"""Ask a linear probe, fitted without a device, whether its labels go with its features as the others' do.

Features of devices that began from the same extractor are comparable, and a nearest class mean in a whitened
space finds a good part of the classes in them. The class means come from the other devices alone; each class
counts the same, however rare it is. What a device must reach is what the others reach on the same classes,
each under the probe without itself: a class that only this device holds, or that nobody's probe recognises,
says nothing, so that skewed splits are judged on little and uniform ones on everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server_app.quarantine.evidence import Evidence

# Share of the mean variance that is added to every direction: few samples have many dimensions.
_SHRINKAGE = 0.5
# Of one device and class: fewer are no evidence; more do not count more, lest one device dictate a mean.
_FEWEST, _MOST = 4, 20
# Devices beside the judged one that must show that a class is recognised, and how well.
_WITNESSES = 2
_RECOGNISED = 0.3
# Of the witnesses' accuracies: the lowest quarter may be other attackers.
_QUANTILE = 0.25
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well labels go with features.

    Attributes:
        hits: Samples whose label the others' probe names.
        expected: As many as should be, going by the other devices' samples of the same classes.
        num_samples: Samples of the classes that could be judged.
    """

    hits: int
    expected: float
    num_samples: int

    @property
    def ratio(self) -> float:
        """Hits over what was expected; 1 where nothing could be judged."""
        return self.hits / self.expected if self.expected else 1.0


def label_agreement(evidence: Mapping[str, Evidence]) -> dict[str, Agreement]:
    """Judge each device's labels by the other devices' features and labels.

    Args:
        evidence: Devices whose extractors are still near each other, by client id.
    """
    ids = sorted(evidence)
    points = {client_id: _whitenable(evidence[client_id]) for client_id in ids}
    means, counts, whitening = _class_means(ids, points, evidence)
    points = {client_id: values @ whitening for client_id, values in points.items()}
    means = {place: mean @ whitening for place, mean in means.items()}
    # Accuracy of each device on each of its classes: (hits, samples).
    accuracies: dict[str, dict[int, tuple[int, int]]] = {}
    for client_id in ids:
        classes, centres = _centres_without(client_id, means, counts)
        accuracies[client_id] = {}
        if len(classes) < 2:
            continue
        distances = np.stack(
            [np.square(points[client_id] - centre).sum(axis=1) for centre in centres], axis=1
        )
        named = np.asarray(classes)[distances.argmin(axis=1)]
        labels = evidence[client_id].labels
        for label in classes:
            mine = labels == label
            if mine.any():
                accuracies[client_id][label] = (int((named[mine] == label).sum()), int(mine.sum()))
    return {client_id: _agreement(client_id, accuracies) for client_id in ids}


def _whitenable(evidence: Evidence) -> NDArray[np.float64]:
    flat = evidence.pooled.reshape(len(evidence.labels), -1).astype(np.float64)
    # Extractors differ in scale first: running statistics of few batches are far from where they will be.
    return np.asarray(flat / np.sqrt(max(float(np.mean(np.square(flat))), _TINY)))


def _class_means(
    ids: list[str], points: Mapping[str, NDArray[np.float64]], evidence: Mapping[str, Evidence]
) -> tuple[dict[tuple[str, int], NDArray[np.float64]], dict[tuple[str, int], int], NDArray[np.float64]]:
    """Mean of each device's class, its number of samples, and what whitens the scatter around these means.

    The scatter within one device's class is what it is whatever the class is called.
    """
    dimensions = next(iter(points.values())).shape[1]
    scatter, freedom = np.zeros((dimensions, dimensions)), 0
    means: dict[tuple[str, int], NDArray[np.float64]] = {}
    counts: dict[tuple[str, int], int] = {}
    for client_id in ids:
        for label in np.unique(evidence[client_id].labels).tolist():
            mine = points[client_id][evidence[client_id].labels == label]
            means[client_id, label], counts[client_id, label] = mine.mean(axis=0), len(mine)
            deviations = mine - means[client_id, label]
            scatter += deviations.T @ deviations
            freedom += len(mine) - 1
    scatter /= max(1, freedom)
    level = float(np.trace(scatter)) / dimensions
    scatter = (1 - _SHRINKAGE) * scatter + (_SHRINKAGE * level + _TINY) * np.eye(dimensions)
    values, vectors = np.linalg.eigh(scatter)
    return means, counts, np.asarray(vectors / np.sqrt(np.maximum(values, _TINY)))


def _centres_without(
    client_id: str,
    means: Mapping[tuple[str, int], NDArray[np.float64]],
    counts: Mapping[tuple[str, int], int],
) -> tuple[list[int], list[NDArray[np.float64]]]:
    classes, centres = [], []
    for label in sorted({label for _, label in means}):
        others = [owner for owner, other in means if other == label and owner != client_id]
        if sum(counts[owner, label] for owner in others) < _FEWEST:
            continue
        weights = np.asarray([min(counts[owner, label], _MOST) for owner in others], np.float64)
        centres.append(np.average([means[owner, label] for owner in others], axis=0, weights=weights))
        classes.append(label)
    return classes, centres


def _agreement(client_id: str, accuracies: Mapping[str, Mapping[int, tuple[int, int]]]) -> Agreement:
    hits, expected, num_samples = 0, 0.0, 0
    for label, (right, total) in accuracies[client_id].items():
        witnesses = [
            others[label][0] / others[label][1]
            for other, others in accuracies.items()
            if other != client_id and label in others and others[label][1] >= _FEWEST
        ]
        if total < _FEWEST or len(witnesses) < _WITNESSES:
            continue
        accuracy = float(np.quantile(witnesses, _QUANTILE, method="lower"))
        if accuracy < _RECOGNISED:
            continue
        hits, expected, num_samples = hits + right, expected + accuracy * total, num_samples + total
    return Agreement(hits, expected, num_samples)
