"""A device's private data out of arrays: what a notebook has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.partition import hold_out
from gkt_core.data.private_data import PrivateData, Samples, check_images, check_integers, save_private_data
from gkt_core.data.reading.arrays import MAX_CLASSES
from gkt_core.errors import DatasetError


def private_data(
    images: NDArray[Any],
    labels: NDArray[Any],
    class_names: Sequence[str],
    *,
    validation_share: float = 0.1,
    seed: int = 0,
    path: Path | None = None,
) -> PrivateData:
    """Make a device's data, of which a part is never trained on.

    Args:
        images: ``[N, S, S, 3] uint8``.
        labels: ``[N]`` whole numbers, positions in ``class_names``.
        class_names: One name a class, the same and in the same order on every device of a run.
        validation_share: Part of the samples that is never trained on, 0..1.
        seed: Of that draw.
        path: Also write the file that ``gkt edge run --data`` takes.

    Raises:
        DatasetError: Names the array and what is wrong with it.
        ConfigError: The share or the seed is out of range.
        PartitionError: There are fewer than 3 samples.
    """
    images, labels, names = np.asarray(images), np.asarray(labels), tuple(map(str, class_names))
    check_images(images, "images")
    check_integers(labels, len(images), "labels")
    if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) < len(names):
        raise DatasetError(f"class_names holds {len(names)} names, expected at least 2, each another")
    outside = labels[(labels < 0) | (labels >= len(names))]
    if outside.size:
        raise DatasetError(f"labels holds {int(outside[0])}, expected 0 to {len(names) - 1}, as class_names")

    def samples(rows: NDArray[np.intp]) -> Samples:
        return Samples(
            np.ascontiguousarray(images[rows]), labels[rows].astype(np.int64), rows.astype(np.int64)
        )

    train, validation = hold_out(len(images), validation_share, seed=seed)
    data = PrivateData(samples(train), samples(validation), names)
    if path is not None:
        save_private_data(path, data)
    return data
