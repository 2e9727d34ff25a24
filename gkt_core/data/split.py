"""Split a dataset into one private file a device, a test set and a description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.data.datasets import Dataset
from gkt_core.data.options import IMAGES
from gkt_core.data.partition import SCHEMES, hold_out, partition
from gkt_core.data.private_data import (
    PRETRAINING_NAME,
    SPLIT_NAME,
    TEST_NAME,
    PrivateData,
    Samples,
    save_private_data,
)
from gkt_core.files import new_folder


@dataclass(frozen=True, slots=True)
class SplitOptions(CheckedOptions):
    """How a dataset is split.

    Attributes:
        num_clients: Number of devices.
        partition: How samples are dealt to devices: at random, or with other classes for each.
        dirichlet_alpha: Small means skewed classes.
        validation_share: Share of each device's samples that is never trained on.
        seed: Seed of every draw.
        pretraining_share: Share of the training images that no device gets, in a file of its own.
    """

    num_clients: int = option(4, low=1, flag="--clients")
    partition: str = option("iid", choices=SCHEMES)
    dirichlet_alpha: float = option(0.5, above=0, group=IMAGES)
    validation_share: float = option(0.1, above=0, below=1, group=IMAGES)
    seed: int = option(0, low=0)
    pretraining_share: float = option(0.0, low=0, below=1, group=IMAGES)


def deal(
    dataset: Dataset, options: SplitOptions
) -> tuple[Iterator[tuple[str, PrivateData]], NDArray[np.intp]]:
    """Split the training part over devices, and hold back what no device gets.

    Returns:
        The devices' names and what each holds, one after the other as memory is dear, and the positions of
        the training images that nobody holds.

    Raises:
        PartitionError: The split cannot be made.
    """
    kept, held_back = _hold_back(len(dataset.x_train), options)
    parts = partition(
        dataset.y_train[kept],
        options.num_clients,
        scheme=options.partition,
        alpha=options.dirichlet_alpha,
        seed=options.seed,
    )

    def dealt() -> Iterator[tuple[str, PrivateData]]:
        for number, part in enumerate(parts):
            owned = kept[part]
            seed = options.seed * 100_003 + number
            train, validation = hold_out(len(owned), options.validation_share, seed=seed)
            samples = _select(dataset, owned[train]), _select(dataset, owned[validation])
            yield f"client-{number:03d}", PrivateData(*samples, dataset.class_names)

    return dealt(), held_back


def split_dataset(dataset: Dataset, options: SplitOptions, out: Path) -> dict[str, Any]:
    """Write ``clients/client-000.npz`` and so on, ``test.npz`` and ``partition.json``.

    Returns:
        What ``partition.json`` holds.

    Raises:
        PartitionError: The split cannot be made.
        InputError: ``out`` cannot become a new folder: it exists, and is not empty.
    """
    dealt, held_back = deal(dataset, options)
    mean, std = dataset.pixel_statistics()
    clients = []
    with new_folder(out) as folder:
        (folder / "clients").mkdir()
        for client_id, data in dealt:
            save_private_data(folder / "clients" / f"{client_id}.npz", data)
            counts = np.bincount(data.train.labels, minlength=dataset.num_classes)
            clients.append(
                {
                    "client_id": client_id,
                    "file": f"clients/{client_id}.npz",
                    "num_examples": len(data.train),
                    "num_validation_examples": len(data.validation),
                    "class_counts": counts.tolist(),
                }
            )
        np.savez(
            folder / TEST_NAME,
            images=dataset.x_test,
            labels=dataset.y_test,
            class_names=np.asarray(dataset.class_names, dtype=np.str_),
        )
        if len(held_back):
            images, labels = dataset.x_train[held_back], dataset.y_train[held_back]
            np.savez(folder / PRETRAINING_NAME, images=images, labels=labels)
        description = {
            "dataset": dataset.name,
            "num_classes": dataset.num_classes,
            "class_names": list(dataset.class_names),
            "image_size": dataset.image_size,
            "pixel_mean": mean,
            "pixel_std": std,
            "horizontal_flip": dataset.horizontal_flip,
            "partition": options.partition,
            "dirichlet_alpha": options.dirichlet_alpha if options.partition == "dirichlet" else None,
            "seed": options.seed,
            "num_test_examples": len(dataset.x_test),
            "pretraining_file": PRETRAINING_NAME if len(held_back) else None,
            "num_pretraining_examples": len(held_back),
            "clients": clients,
        }
        (folder / SPLIT_NAME).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return description


def _hold_back(num_examples: int, options: SplitOptions) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions that devices get, and those that no device gets (for pre-training)."""
    num_held = round(num_examples * options.pretraining_share)
    if num_held == 0:
        return np.arange(num_examples), np.arange(0)
    order = np.random.default_rng([options.seed, 23]).permutation(num_examples)
    return np.sort(order[num_held:]), np.sort(order[:num_held])


def _select(dataset: Dataset, rows: NDArray[np.intp]) -> Samples:
    return Samples(dataset.x_train[rows], dataset.y_train[rows], dataset.sample_ids[rows])
