"""A device's data from wherever its photos lie: packed into the state folder, and again when they change."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from gkt_core.bundle.manifest import Manifest
from gkt_core.data.pack import PackOptions, new_owner_key, pack, target_of
from gkt_core.data.pack_sources import is_function, listing
from gkt_core.data.private_data import (
    PrivateData,
    is_private_data,
    load_private_data,
    owner_key_of,
    save_private_data,
)
from gkt_core.errors import DatasetError
from gkt_core.files import write_atomically

PACKED_NAME, _ABOUT_NAME = "packed.npz", "packed.json"


def is_packed(source: str) -> bool:
    """Say whether a source is a device's file as it is, and need not be packed.

    Raises:
        DatasetError: It is a file that cannot be read.
    """
    if is_function(source) or os.path.isdir(source):
        return False
    if not os.path.exists(source):
        raise DatasetError(
            f"cannot read {source}: there is no such file or folder: gkt data pack PHOTOS --for LINK --out "
            "NAME.npz makes a device's file; or give a folder with one folder of photos a class, an .npz "
            "with images and labels, or MODULE:FUNCTION"
        )
    try:
        return is_private_data(Path(source))
    except DatasetError:
        if Path(source).suffix == ".npz":
            raise
        # A picture or an archive: whoever packs it says what to give instead.
        return False


def packed_data(
    source: str, manifest: Manifest, options: PackOptions, folder: Path | None, note: Callable[[str], None]
) -> PrivateData:
    """Pack images for a bundle, or take what was packed before if nothing changed since.

    Packed again, an image keeps its id and its part (training or validation), wherever its file lies now.
    What a function yields is taken once: whether it would yield something else is not known without asking.

    Args:
        source: A folder of class folders, an ``.npz`` that is no device's file, or ``module:function``.
        manifest: Of the run's bundle.
        options: How.
        folder: The state folder; without one nothing is kept.
        note: Told what was taken and left out, in lines.

    Raises:
        DatasetError: The images cannot be read, or what was packed before.
        ArtifactError: The bundle does not name its classes.
    """
    target = target_of(manifest, options, source)
    about = hashlib.sha256(json.dumps([source, asdict(target), asdict(options)]).encode())
    for line in listing(source):
        about.update(line.encode(errors="surrogateescape") + b"\n")
    packed = None if folder is None else folder / PACKED_NAME
    owner_key, before = b"", None
    if packed is not None and packed.exists():
        owner_key, before = owner_key_of(packed), load_private_data(packed)
        if _about(packed.with_name(_ABOUT_NAME)) == about.hexdigest():
            return before
        note(f"{source}, or how it is to be packed, has changed: packed again")
    owner_key = owner_key or new_owner_key()
    private, report = pack(source, target, options, owner_key, before)
    for line in report.lines():
        note(line.strip())
    if packed is not None:
        save_private_data(packed, private, owner_key)
        values = {"about": about.hexdigest(), "source": source, "reading": report.to_dict()}
        write_atomically(packed.with_name(_ABOUT_NAME), json.dumps(values, indent=2).encode())
    return private


def _about(path: Path) -> str:
    """What the packed file was made of; nothing where it was not noted, as when its device was killed."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["about"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
