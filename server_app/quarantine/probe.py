"""Ask a linear probe, fitted without a device, whether its labels go with its features as the others' do.

Features of devices that began from the same extractor are comparable, and a nearest class mean in a
whitened space finds classes in them. Such a probe names few photos rightly, and yet their own class is
nearer than most: what is looked at is the *standing* of each label, the share of the other classes that are
farther from the sample. The class means come from the other devices alone; each class counts the same,
however rare it is. What a device must reach is what the others reach on the same classes, each under the
probe without itself: a class that only this device holds, or that nobody's probe recognises, says nothing,
so that skewed splits are judged on little and uniform ones on everything. Nor does a device that sees
another world than the others, whose samples are far from all class means; and a picture that a device shows
a hundred times counts once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server_app.quarantine.evidence import Evidence
from server_app.quarantine.past import num_images

# Share of the mean variance that is added to every direction: few samples have many dimensions.
_SHRINKAGE = 0.5
# Of one device and class: fewer are no evidence; more do not count more, lest one device dictate a mean.
_FEWEST, _MOST = 4, 20
# Devices beside the judged one that must show that a class is recognised, and how well.
_WITNESSES = 2
_FEWEST_CLASSES = 2
_RECOGNISED = 0.6
_CHANCE = 0.5
# Medians of a few validation samples are uncertain, and nothing was trained on them.
_LENIENCE = 0.7
# Of the witnesses' standings: the lowest quarter may be other attackers.
_QUANTILE = 0.25
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well labels go with features.

    Attributes:
        standing: Mean standing of the labels that could be judged; 0.5 is chance, 1 is best.
        expected: What it should be, going by the other devices' samples of the same classes.
        deficit: How much is missing, in standard deviations of what chance makes of as many images.
        num_samples: Samples of the classes that could be judged.
        strangeness: How far its samples are from the nearest of the others' class means, next to how far they
            are from its own ones, and next to the others' samples; about 1 where all see the same world.
    """

    standing: float
    expected: float
    deficit: float
    num_samples: int
    strangeness: float = 1.0

    def of_randomised(self, kept: float, num_classes: int) -> Agreement:
        """Say what it should be where a label stayed with this chance, and is any other one otherwise."""
        share = kept - (1 - kept) / max(1, num_classes - 1)
        expected = _CHANCE + (self.expected - _CHANCE) * share
        missing = self.expected - self.standing
        deficit = self.deficit * (expected - self.standing) / missing if missing > _TINY else 0.0
        return dataclasses.replace(self, expected=expected, deficit=deficit)

    @property
    def ratio(self) -> float:
        """What is reached of what was expected, both above chance; 1 where nothing could be judged."""
        return (self.standing - _CHANCE) / (self.expected - _CHANCE) if self.num_samples else 1.0


def label_agreement(evidence: Mapping[str, Evidence]) -> dict[str, Agreement]:
    """Judge each device's labels by the other devices' features and labels.

    Args:
        evidence: Devices whose extractors are still near each other, by client id.
    """
    probe = _Probe(evidence)
    seen = {client_id: probe.look(evidence[client_id], without=client_id) for client_id in sorted(evidence)}
    return {
        client_id: _agreement(client_id, own, seen, evidence[client_id], _FEWEST)
        for client_id, own in seen.items()
    }


def validation_agreement(
    trained_on: Mapping[str, Evidence], validation: Mapping[str, Evidence]
) -> dict[str, Agreement]:
    """Judge labels of validation samples by training samples, those of the same device included.

    A validation split is small: what must be reached is what training samples of the class reach, the other
    devices' and the device's own, and a class with a single sample counts. Strange is what is so in training.
    """
    probe = _Probe(trained_on)
    seen = {client_id: probe.look(each, without=client_id) for client_id, each in trained_on.items()}
    agreement = {}
    for client_id in sorted(validation.keys() & trained_on.keys()):
        own = probe.look(validation[client_id], without="")
        known = {
            label: own.standings[label]
            for label, (standing, _) in seen[client_id].standings.items()
            if label in own.standings and standing >= _RECOGNISED
        }
        distance = max(seen[client_id].distance, _LENIENCE * own.distance)
        looked = _Look(known, own.num_classes, distance, seen[client_id].scatter)
        agreement[client_id] = _agreement(client_id, looked, seen, validation[client_id], 1)
    return agreement


@dataclass(frozen=True, slots=True)
class _Look:
    """What a probe sees in some samples: mean standing and number of each class, squared distances (medians).

    Distances are to the nearest of the class means, and to the means of the samples' own classes on their own
    device; infinite and 0 where there are none.
    """

    standings: Mapping[int, tuple[float, int]]
    num_classes: int
    distance: float
    scatter: float


class _Probe:
    """Class means of some devices' samples, whitened by the scatter around them."""

    def __init__(self, evidence: Mapping[str, Evidence]) -> None:
        points = {client_id: _whitenable(each) for client_id, each in evidence.items()}
        means, self._counts, self._whitening = _class_means(sorted(evidence), points, evidence)
        self._means = {place: mean @ self._whitening for place, mean in means.items()}

    def look(self, evidence: Evidence, *, without: str) -> _Look:
        """Compare samples with the class means of all devices but one."""
        classes, centres = _centres_without(without, self._means, self._counts)
        if len(classes) < _FEWEST_CLASSES:
            return _Look({}, len(classes), np.inf, 0.0)
        own = _whitenable(evidence) @ self._whitening
        distances = np.stack([np.square(own - centre).sum(axis=1) for centre in centres], axis=1)
        standings = {}
        for column, label in enumerate(classes):
            mine = distances[evidence.labels == label]
            if len(mine):
                farther = (mine > mine[:, [column]]).sum(axis=1) / (len(classes) - 1)
                standings[label] = (float(farther.mean()), len(mine))
        nearest = float(np.median(distances.min(axis=1)))
        return _Look(standings, len(classes), nearest, _scatter(own, evidence.labels))


def _scatter(points: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Median squared distance to the mean of the own class, of classes with enough samples."""
    distances = [np.zeros(0)]
    for label, num in zip(*np.unique(labels, return_counts=True), strict=True):
        if num >= _FEWEST:
            mine = points[labels == label]
            distances.append(np.square(mine - mine.mean(axis=0)).sum(axis=1) * num / (num - 1))
    together = np.concatenate(distances)
    return float(np.median(together)) if len(together) else 0.0


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


def _agreement(
    client_id: str, own: _Look, seen: Mapping[str, _Look], evidence: Evidence, fewest: int
) -> Agreement:
    others = [look for other, look in seen.items() if other != client_id and look.standings]
    reached, expected, images, num_samples = 0.0, 0.0, 0.0, 0
    for label, (standing, total) in own.standings.items():
        witnesses = [
            look.standings[label][0] for look in others if look.standings.get(label, (0, 0))[1] >= _FEWEST
        ]
        if total < fewest or len(witnesses) < _WITNESSES:
            continue
        usual_standing = float(np.quantile(witnesses, _QUANTILE, method="lower"))
        if usual_standing < _RECOGNISED:
            continue
        weight = num_images(evidence, label) * total
        reached, expected = reached + weight * standing, expected + weight * usual_standing
        images, num_samples = images + weight, num_samples + total
    usual = float(np.median([look.distance for look in others])) if others else 0.0
    strangeness = own.distance / max(min(own.scatter, usual), _TINY)
    if not num_samples:
        return Agreement(1.0, 1.0, 0.0, 0, strangeness)
    reached, expected = reached / images, expected / images
    deficit = (expected - reached) / _deviation(own.num_classes) * np.sqrt(images)
    return Agreement(reached, expected, float(deficit), num_samples, strangeness)


def _deviation(num_classes: int) -> float:
    """Standard deviation of a drawn label's standing, which has as many values as there are classes."""
    return float(np.sqrt((num_classes + 1) / (12 * (num_classes - 1))))
