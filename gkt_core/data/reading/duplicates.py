"""Images that are there more than once: noted, as they may be a mistake and make an accuracy too good."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.reading.report import ReadingReport, are, counted

_NONE = np.zeros((0, 1, 1, 3), np.uint8)


def note_duplicates(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    report: ReadingReport,
    *,
    test: NDArray[np.uint8] = _NONE,
) -> None:
    """Count equal images, those with several labels, and those of a test part that are trained on as well.

    Args:
        images: ``[N, S, S, 3] uint8``, to train on.
        labels: ``[N] int64``.
        report: Told what there is.
        test: ``[M, S, S, 3] uint8``, not to train on.
    """
    classes: dict[bytes, set[int]] = {}
    for image, label in zip(images, labels.tolist(), strict=True):
        classes.setdefault(_digest(image), set()).add(label)
    if num := len(images) - len(classes):
        report.notes.append(f"{num} of {counted(len(images), 'image')} {are(num)} there a second time")
    if num := sum(len(each) > 1 for each in classes.values()):
        have = "has" if num == 1 else "have"
        report.notes.append(
            f"{counted(num, 'image')} {have} more than one label, of which one is right at most"
        )
    if num := sum(_digest(image) in classes for image in test):
        report.notes.append(
            f"{num} of {counted(len(test), 'image')} that {are(len(test))} not trained on {are(num)} equal "
            "to one that is: accuracy on them says little"
        )


def _digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
