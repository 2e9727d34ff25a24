"""A device's data from wherever its photos lie: packed once for a run, and kept in the state folder."""

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
from gkt_core.data.private_data import PrivateData, is_private_data, load_private_data, save_private_data
from gkt_core.files import write_atomically

PACKED_NAME, _ABOUT_NAME = "packed.npz", "packed.json"


def is_packed(source: str) -> bool:
    """Say whether a source is a device's file as it is, and need not be packed.

    Raises:
        DatasetError: It is a file that cannot be read.
    """
    return not is_function(source) and not os.path.isdir(source) and is_private_data(Path(source))


def packed_data(
    source: str, manifest: Manifest, options: PackOptions, folder: Path | None, note: Callable[[str], None]
) -> PrivateData:
    """Pack images for a bundle, or take what was packed for it before.

    A run goes on with the images that it began with: what the server answered belongs to those.

    Args:
        source: A folder of class folders, an ``.npz`` that is no device's file, or ``module:function``.
        manifest: Of the run's bundle.
        options: How.
        folder: The state folder; without one nothing is kept.
        note: Told what was taken and left out, in lines.

    Raises:
        DatasetError: The images cannot be read.
        ArtifactError: The bundle does not name its classes.
    """
    target = target_of(manifest, options)
    about = hashlib.sha256(json.dumps([source, asdict(target), asdict(options)]).encode())
    for line in listing(source):
        about.update(line.encode(errors="surrogateescape") + b"\n")
    if folder is not None and (folder / PACKED_NAME).exists() and (folder / _ABOUT_NAME).exists():
        kept = load_private_data(folder / PACKED_NAME)
        num = len(kept.train) + len(kept.validation)
        if json.loads((folder / _ABOUT_NAME).read_text(encoding="utf-8"))["about"] != about.hexdigest():
            note(
                f"{source} has changed since it was packed: this device goes on with the {num} images that "
                "it began with; for the new ones, another --state-dir"
            )
        return kept
    owner_key = new_owner_key()
    private, report = pack(source, target, options, owner_key)
    for line in report.lines():
        note(line.strip())
    if folder is not None:
        save_private_data(folder / PACKED_NAME, private, owner_key)
        values = {"about": about.hexdigest(), "source": source, "reading": report.to_dict()}
        write_atomically(folder / _ABOUT_NAME, json.dumps(values, indent=2).encode())
    return private
