"""A federation out of arrays: the images of one place, dealt to simulated devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.data.datasets import Dataset, make_dataset
from gkt_core.data.private_data import Samples
from gkt_core.data.split import SplitOptions, deal


def federation_from_arrays(
    x_train: NDArray[Any],
    y_train: NDArray[Any],
    x_test: NDArray[Any],
    y_test: NDArray[Any],
    *,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
    **split: Any,
) -> Federation:
    """Deal images to devices as ``gkt data split`` does, without files.

    Args:
        x_train: ``[N, S, S, 3] uint8``, S a multiple of 4.
        y_train: ``[N]`` whole numbers from 0.
        x_test: ``[M, S, S, 3] uint8``: looked at once, at the end.
        y_test: ``[M]``.
        class_names: One name a class; by default the labels' numbers.
        name: For messages.
        **split: Fields of :class:`gkt_core.data.split.SplitOptions`: ``num_clients``, ``partition`` (``iid``
            or ``dirichlet``), ``dirichlet_alpha``, ``validation_share``, ``pretraining_share``, ``seed``.

    Raises:
        DatasetError: Names the array and what is wrong with it.
        ConfigError: A field of the split is out of range.
        PartitionError: The split cannot be made.
    """
    train, test = (np.asarray(x_train), np.asarray(y_train)), (np.asarray(x_test), np.asarray(y_test))
    dataset = make_dataset(name, train, test, class_names, horizontal_flip=True)
    return federation_of(dataset, SplitOptions(**split))


def federation_of(dataset: Dataset, options: SplitOptions) -> Federation:
    """Deal a dataset to devices.

    Raises:
        PartitionError: The split cannot be made.
    """
    clients, held_back = deal(dataset, options)
    mean, std = dataset.pixel_statistics()
    return Federation(
        clients=dict(clients),
        test=_samples(dataset.x_test, dataset.y_test),
        class_names=dataset.class_names,
        pixel_mean=tuple(mean),
        pixel_std=tuple(std),
        pretraining=_samples(dataset.x_train[held_back], dataset.y_train[held_back])
        if len(held_back)
        else None,
        horizontal_flip=dataset.horizontal_flip,
    )


def _samples(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Samples:
    return Samples(images, labels, np.arange(len(labels), dtype=np.int64))
