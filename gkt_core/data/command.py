"""``gkt data``: split any dataset into one private file a device."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from gkt_core.cli import EntryPointGroup, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.config.output_path import OUTPUT_FOLDER
from gkt_core.data.contact_sheet_option import contact_sheet_option
from gkt_core.data.options import DatasetOptions
from gkt_core.data.private_data import CONTACT_SHEET_NAME, load_private_data
from gkt_core.data.reading.contact_sheet import write_contact_sheet
from gkt_core.data.split import SplitOptions, split_dataset
from gkt_core.files import check_new_folder


# `gkt data pack` may ask a server for its classes: the device's package, above this one, registers it.
@click.group(cls=EntryPointGroup, entry_group="gkt.commands.data")
def data() -> None:
    """Make private files: of one device's photos, of a dataset for many; look into them."""


@data.command(example="gkt data split --dataset cifar10.npz --partition dirichlet --clients 8 --out split")
@dataclass_options(DatasetOptions, "images")
@dataclass_options(SplitOptions)
@click.option("--out", type=OUTPUT_FOLDER, required=True, help="A new folder.")
@contact_sheet_option("OUT/contact-sheet.png, for images of your own")
@json_option("partition.json, and what was left out under reading")
def split(
    images: DatasetOptions, options: SplitOptions, out: Path, contact_sheet: Path | None, as_json: bool
) -> None:
    """Write clients/client-000.npz and so on, test.npz and partition.json.

    Each client file holds uint8 images, labels and sample ids of one device, and a validation share. Of a
    folder or a file of your own, it says in the end what was taken, converted and left out, and draws some
    images of each class on a contact sheet.
    """
    check_new_folder(out)
    loaded = images.load(options.seed)
    description = split_dataset(loaded, options, out)
    sheet = contact_sheet or (out / CONTACT_SHEET_NAME if loaded.reading else None)
    if sheet is not None:
        write_contact_sheet(sheet, loaded.x_train, loaded.y_train, loaded.class_names)
    if as_json:
        emit_json(description | ({"reading": loaded.reading.to_dict()} if loaded.reading else {}))
        return
    if loaded.reading:
        click.echo("\n".join(loaded.reading.lines()))
    click.echo(
        f"{out}: {options.num_clients} clients, {loaded.num_classes} classes, images {loaded.image_size} px, "
        f"{len(loaded.x_test)} test images"
    )
    for client in description["clients"]:
        click.echo(
            f"  {client['file']}: {client['num_examples']} to train, "
            f"{client['num_validation_examples']} to validate"
        )


@data.command(example="gkt data show split/clients/client-000.npz")
@click.argument("file", type=click.Path(path_type=Path))
@json_option()
def show(file: Path, as_json: bool) -> None:
    """Check a device's FILE and say what it holds."""
    private = load_private_data(file)
    counts = np.bincount(private.train.labels, minlength=private.num_classes).tolist()
    description = {
        "num_examples": len(private.train),
        "num_validation_examples": len(private.validation),
        "image_size": private.image_size,
        "class_counts": dict(zip(private.class_names, counts, strict=True)),
    }
    if as_json:
        emit_json(description)
        return
    for name, value in description.items():
        click.echo(f"{name}: {value}")
