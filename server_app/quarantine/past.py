"""Compare a device's upload with what it sent before: the same images must still be the same images.

Extractors drift from round to round, scenes differ in light and contrast, and owners put noise on features:
no correlation is high enough for all. What stays is *which* image it is. Of the patches of one upload, that
of the same sample must be more alike than those of the device's other samples; and where a device's images
do not differ, there is nothing to compare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server_app.quarantine.evidence import Evidence

_FEWEST_SHARED = 16
_FEWEST_OF_A_CLASS = 12
_FEWEST_ALIKE = 4
# Share of the variance that tells images apart, measured with products of neighbours: not noise.
_LEAST_DIVERSITY = 0.05
_LEAST_SPREAD = 0.05
_SAME_IMAGE = 0.9
_CELL = 3  # features: noise of a sensor or of an owner makes no other image
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Recognition:
    """Which samples are known again.

    Attributes:
        labels: ``[k] int64``: of the samples that could be compared.
        ranks: ``[k]``: share of the device's other samples that are less like a sample's past than itself:
            1 for images that are known again, 0.5 for numbers that have nothing to do with them.
    """

    labels: NDArray[np.int64]
    ranks: NDArray[np.float64]

    def parts(self) -> Iterator[tuple[int | None, float, int]]:
        """Mean rank and number of samples of all (None), and of each class with enough of them."""
        if len(self.ranks) >= _FEWEST_SHARED:
            yield None, float(self.ranks.mean()), len(self.ranks)
        for label in np.unique(self.labels).tolist():
            mine = self.ranks[self.labels == label]
            if len(mine) >= _FEWEST_OF_A_CLASS:
                yield label, float(mine.mean()), len(mine)


def recognise(now: Evidence, before: Evidence) -> Recognition:
    """Look for each sample among the device's past ones, views of the same side only."""
    ids_now, ids_before = now.sample_ids[now.patched], before.sample_ids[before.patched]
    _, here, there = np.intersect1d(ids_now, ids_before, return_indices=True)
    labels, ranks = [], []
    # A convolution of a mirrored image is not the mirrored convolution.
    sides = now.mirrored[here]
    alike = sides == before.mirrored[there]
    if now.patches.shape[1:] != before.patches.shape[1:] or now.patches[0].size == 0:
        alike[:] = False
    for side in (0, 1):
        group = alike & (sides == side)
        if group.sum() < _FEWEST_ALIKE:
            continue
        past = _apart(before.patches[there[group]], before.spread)
        if _diversity(past) < _LEAST_DIVERSITY:
            continue
        present = _apart(now.patches[here[group]], now.spread)
        likeness = _unit(present) @ _unit(past).T
        own = np.diagonal(likeness)[:, None]
        others = (likeness < own) + 0.5 * (likeness == own)
        ranks.append((others.sum(axis=1) - 0.5) / (len(others) - 1))
        labels.append(before.labels[before.patched][there[group]])
    if not ranks:
        return Recognition(np.zeros(0, np.int64), np.zeros(0))
    return Recognition(np.concatenate(labels), np.concatenate(ranks))


def _apart(patches: NDArray[np.float32], overall: float) -> NDArray[np.float64]:
    """What tells the images apart: differences from the mean image, in units of each channel's spread.

    Channels that hardly vary inside the images, next to the spread of all features, say nothing.
    """
    values = patches.astype(np.float64)
    spread = values.std(axis=(0, 2, 3), keepdims=True)
    apart = values - values.mean(axis=0)
    alive = spread > max(_LEAST_SPREAD * overall, _TINY)
    return np.asarray(np.where(alive, apart / np.maximum(spread, _TINY), 0.0))


def _diversity(apart: NDArray[np.float64]) -> float:
    channels = float(np.mean(np.any(apart != 0, axis=(0, 2, 3))))
    return float(np.mean(apart[..., 1:] * apart[..., :-1])) / max(channels, _TINY)


def _unit(apart: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = apart.reshape(len(apart), -1)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), _TINY))


def num_images(evidence: Evidence, label: int) -> float:
    """Count a class's images that differ: frames of a fixed camera are one image many times.

    Counted are the patches that are less than 0.9 like all before them.

    Returns:
        Share of the class's samples that are images of their own, 0..1; 1 where there are no patches.
    """
    mine = evidence.patches[evidence.labels[evidence.patched] == label].astype(np.float64)
    if len(mine) == 0 or mine[0].size == 0:
        return 1.0
    height, width = (size // _CELL for size in mine.shape[2:])
    cut = mine
    if min(height, width) > 0:
        cut = mine[:, :, : height * _CELL, : width * _CELL]
        cut = cut.reshape(*mine.shape[:2], height, _CELL, width, _CELL).mean(axis=(3, 5))
    centred = cut - cut.mean(axis=(0, 2, 3), keepdims=True)
    likeness = _unit(centred) @ _unit(centred).T
    own, plain = [0], np.diagonal(likeness) == 0
    for row in range(1, len(likeness)):
        if not plain[row] and likeness[row, own].max() < _SAME_IMAGE:
            own.append(row)
    return len(own) / len(mine)
