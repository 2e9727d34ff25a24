"""What may not go into a training step, because it would spoil the weights without a word."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import DatasetError


def check_batch(images: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int) -> None:
    """Refuse a batch before it changes any state.

    Raises:
        DatasetError: Images are not finite, a label is none of the classes, or the batch is empty.
    """
    if len(labels) == 0 or len(labels) != len(images):
        raise DatasetError(
            f"a batch of {len(images)} images and {len(labels)} labels: expected as many, 1 or more"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise DatasetError(
            f"labels run from {low} to {high}, the artifacts were made for 0 to {num_classes - 1}: "
            "split the data again, or export with more --num-classes"
        )
    if not np.isfinite(images).all():
        raise DatasetError("images hold NaN or infinity, expected numbers from 0 to 1: look at the data file")
