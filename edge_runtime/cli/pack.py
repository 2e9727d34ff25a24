"""The command ``gkt data pack``: a device makes its own file."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from edge_runtime.cli.connecting import OLD_TOKEN, connect, manifest_for
from edge_runtime.cli.options import PackCommandOptions
from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.data.contact_sheet_option import contact_sheet_option
from gkt_core.data.pack import class_counts, contact_sheet_path, new_owner_key, pack, target_of
from gkt_core.data.private_data import PrivateData, load_private_data, owner_key_of, save_private_data
from gkt_core.data.reading.contact_sheet import write_contact_sheet
from gkt_core.errors import ConfigError, DatasetError, InputError, needs
from gkt_core.wire.join_link import given_join_link

if TYPE_CHECKING:
    from edge_runtime.server_client import ServerClient


@click.command("pack", cls=Command, example="gkt data pack photos --for artifacts --out mine.npz")
@click.argument("source")
@dataclass_options(PackCommandOptions)
@contact_sheet_option("NAME-contact-sheet.png beside it")
@json_option()
def pack_command(source: str, options: PackCommandOptions, contact_sheet: Path | None, as_json: bool) -> None:
    """Make this device's private file from SOURCE, on the device itself.

    SOURCE is a folder with one folder of photos a class, an .npz with images and labels, or MODULE:FUNCTION,
    which yields pairs of an image and a label. Classes, their order and the image size come from a bundle, or
    from the server of a run. A class without photos is fine; a folder that is no class is left out and named.
    Packed again into the same file, images keep their sample ids.
    """
    with needs("data", "Pillow"):
        importlib.import_module("PIL")
    out = options.out
    owner_key, before = _packed_before(out)

    def to_server(place: str) -> ServerClient:
        note = functools.partial(click.echo, err=True)
        wire = functools.partial(
            connect, options=options.connection, patience_seconds=options.patience_seconds, note=note
        )
        if not place.lower().startswith(("http://", "https://")):
            with needs("edge"):
                from edge_runtime.membership import as_guest  # noqa: PLC0415 - imports an extra
            return as_guest(given_join_link(place), wire)
        if not options.token:
            raise ConfigError(f"--for {place} is a server: give the join link that it prints instead")
        note(OLD_TOKEN)
        return wire(place, options.token)

    target = target_of(manifest_for(options.place, to_server), options.pack, source)
    private, report = pack(source, target, options.pack, owner_key, before)
    save_private_data(out, private, owner_key)
    sheet = contact_sheet or contact_sheet_path(out)
    write_contact_sheet(
        sheet,
        np.concatenate([private.train.images, private.validation.images]),
        np.concatenate([private.train.labels, private.validation.labels]),
        private.class_names,
    )
    described = {
        "file": str(out),
        "contact_sheet": str(sheet),
        "num_examples": len(private.train),
        "num_validation_examples": len(private.validation),
        "image_size": private.image_size,
        "class_counts": class_counts(private),
        "reading": report.to_dict(),
    }
    if as_json:
        emit_json(described)
        return
    click.echo("\n".join(report.lines()))
    counts = ", ".join(f"{name} {num}" for name, num in class_counts(private).items())
    click.echo(
        f"{out}: {len(private.train)} to train, {len(private.validation)} to validate, "
        f"{private.image_size} px; {counts}; look at {sheet}"
    )


def _packed_before(out: Path) -> tuple[bytes, PrivateData | None]:
    """Take the key of the file that is packed again, and what it holds; or draw a key.

    Raises:
        InputError: The file is there, and is no packed one.
    """
    if out.suffix != ".npz":
        raise InputError(f"--out is {out}, expected a name such as mine.npz")
    if not out.exists():
        return new_owner_key(), None
    try:
        owner_key = owner_key_of(out)
    except DatasetError:
        owner_key = b""
    if not owner_key:
        raise InputError(f"{out} is there and was not made by gkt data pack: choose another --out")
    return owner_key, load_private_data(out)
