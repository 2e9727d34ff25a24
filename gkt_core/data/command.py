"""``gkt data``: split any dataset into one private file a device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from gkt_core.cli import emit_json
from gkt_core.config.network_options import dataset_options
from gkt_core.data.datasets import Dataset, load_dataset
from gkt_core.data.partition import hold_out
from gkt_core.data.partition import partition as partition_samples
from gkt_core.data.private_data import (
    PRETRAINING_NAME,
    SPLIT_NAME,
    TEST_NAME,
    PrivateData,
    Samples,
    load_private_data,
    save_private_data,
)
from gkt_core.errors import ConfigError
from gkt_core.files import check_new_folder, new_folder


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How to split."""

    num_clients: int
    scheme: str
    dirichlet_alpha: float
    validation_share: float
    seed: int
    pretraining_share: float = 0.0


def split_dataset(dataset: Dataset, options: SplitOptions, out: Path) -> dict[str, Any]:
    """Write ``clients/client-000.npz`` and so on, ``test.npz`` and ``partition.json``.

    Args:
        dataset: What to split.
        options: How.
        out: A folder that must not exist yet, or be empty.

    Returns:
        What ``partition.json`` holds.

    Raises:
        PartitionError: The split cannot be made.
        InputError: ``out`` cannot become a new folder.
    """
    kept, held_back = _hold_back(len(dataset.x_train), options)
    parts = partition_samples(
        dataset.y_train[kept],
        options.num_clients,
        scheme=options.scheme,
        alpha=options.dirichlet_alpha,
        seed=options.seed,
    )
    mean, std = dataset.pixel_statistics()
    clients = []
    with new_folder(out) as folder:
        (folder / "clients").mkdir()
        for number, part in enumerate(parts):
            owned = kept[part]
            client_id = f"client-{number:03d}"
            train, validation = hold_out(
                len(owned), options.validation_share, seed=options.seed * 100_003 + number
            )
            data = PrivateData(
                _select(dataset, owned[train]), _select(dataset, owned[validation]), dataset.class_names
            )
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
            np.savez(
                folder / PRETRAINING_NAME,
                images=dataset.x_train[held_back],
                labels=dataset.y_train[held_back],
            )
        description = {
            "dataset": dataset.name,
            "num_classes": dataset.num_classes,
            "class_names": list(dataset.class_names),
            "image_size": dataset.image_size,
            "pixel_mean": mean,
            "pixel_std": std,
            "horizontal_flip": dataset.horizontal_flip,
            "partition": options.scheme,
            "dirichlet_alpha": options.dirichlet_alpha if options.scheme == "dirichlet" else None,
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
    if not 0 <= options.pretraining_share < 1:
        raise ConfigError(
            f"pre-training share is {options.pretraining_share}, expected a number from 0 to below 1"
        )
    num_held = round(num_examples * options.pretraining_share)
    order = np.random.default_rng([options.seed, 23]).permutation(num_examples) if num_held else None
    if order is None:
        return np.arange(num_examples), np.arange(0)
    return np.sort(order[num_held:]), np.sort(order[:num_held])


def _select(dataset: Dataset, rows: np.ndarray[Any, Any]) -> Samples:
    return Samples(dataset.x_train[rows], dataset.y_train[rows], dataset.sample_ids[rows])


@click.group()
def data() -> None:
    """Split a dataset into one private file a device, and look into such files."""


@data.command()
@dataset_options
@click.option("--clients", "num_clients", default=4, show_default=True, help="Number of devices.")
@click.option(
    "--pretraining-share",
    default=0.0,
    show_default=True,
    help="Share of the training images that no device gets, in a file of its own.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--json", "as_json", is_flag=True, help="Print partition.json to stdout.")
def split(
    *,
    dataset: str,
    partition: str,
    dirichlet_alpha: float,
    validation_share: float,
    image_size: int | None,
    limit: int | None,
    data_root: Path,
    num_clients: int,
    pretraining_share: float,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Write clients/client-000.npz and so on, test.npz and partition.json.

    Each client file holds uint8 images, labels and sample ids of one device, and a validation share.
    """
    check_new_folder(out)
    loaded = load_dataset(dataset, image_size=image_size, limit=limit, seed=seed, data_root=data_root)
    options = SplitOptions(num_clients, partition, dirichlet_alpha, validation_share, seed, pretraining_share)
    description = split_dataset(loaded, options, out)
    if as_json:
        emit_json(description)
        return
    click.echo(
        f"{out}: {num_clients} clients, {loaded.num_classes} classes, images {loaded.image_size} px, "
        f"{len(loaded.x_test)} test images"
    )
    for client in description["clients"]:
        click.echo(
            f"  {client['file']}: {client['num_examples']} to train, "
            f"{client['num_validation_examples']} to validate"
        )


@data.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True)
def show(file: Path, as_json: bool) -> None:
    """Check a device's FILE and say what it holds."""
    private = load_private_data(file)
    description = {
        "num_examples": len(private.train),
        "num_validation_examples": len(private.validation),
        "image_size": private.image_size,
        "class_counts": dict(
            zip(
                private.class_names,
                np.bincount(private.train.labels, minlength=private.num_classes).tolist(),
                strict=True,
            )
        ),
    }
    if as_json:
        emit_json(description)
        return
    for name, value in description.items():
        click.echo(f"{name}: {value}")
