"""What images of a file are, what would fit, and the command that makes it so."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE
from gkt_core.data.reading.image_folder import PARTS, folders_below
from gkt_core.data.reading.images import IMAGE_SUFFIXES
from gkt_core.errors import DatasetError

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def not_a_source(source: str, what: str, expected: str) -> str:
    """Say why what was given holds no images, with what helps.

    Args:
        source: What was given: neither a folder nor an ``.npz``.
        what: Begins the sentence where there is no such file: there is no dataset, or no images.
        expected: What can be given.
    """
    path = Path(source)
    if not os.path.exists(source):
        return f"{what} {source!r}: expected {expected}"
    if path.suffix.lower() in _ARCHIVES:
        return f"{source} is an archive: unpack it, and give the folder that the class folders are in"
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return (
            f"{source} is one picture: give a folder with one folder of photos a class, as photos for "
            f"photos/cat/{path.name}"
        )
    return f"{source} holds no images that can be read: expected {expected}"


def unreadable_folder(path: Path, error: OSError) -> DatasetError:
    """Make the error of a folder that cannot be listed."""
    if isinstance(error, PermissionError):
        named = Path(error.filename or path)
        return DatasetError(
            f"the folder {named} may not be read by this user: chmod -R u+rX {shlex.quote(str(named))}, as "
            "its owner"
        )
    return DatasetError(f"cannot read the image folder {path}: {error.strerror or error}")


def check_sides(path: Path, key: str, images: NDArray[Any]) -> None:
    """Refuse images that are not square, or of a side that networks do not take.

    Args:
        path: Of the file.
        key: Name of the array.
        images: ``[N, H, W, 3]``.

    Raises:
        DatasetError: Names height and width, what is expected, and the command that scales.
    """
    height, width = images.shape[1:3]
    least = min(height, width)
    if height == width and height % 4 == 0 and MIN_IMAGE_SIZE <= height <= MAX_IMAGE_SIZE:
        return
    side = min(max(MIN_IMAGE_SIZE, least // 4 * 4), MAX_IMAGE_SIZE)
    fit = "" if height == width else " --fit crop"
    others = " (or --fit pad, which keeps all of them on black)" if fit else ""
    raise DatasetError(
        f"{path.name}: {key} is {list(images.shape)}: images {height} px high and {width} px wide; expected "
        f"squares whose side is a multiple of 4 from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}: "
        f"gkt data split --dataset {shlex.quote(str(path))} --image-size {side}{fit} --out split{others}; "
        "other commands that take --dataset take the same options"
    )


def check_several_classes(path: Path, labels: NDArray[np.int64], num_classes: int) -> None:
    """Refuse images of one class, where nothing can be told from another.

    Args:
        path: Of the file or folder.
        labels: Of the training images, ``[N]``.
        num_classes: How many classes there are, shown or declared.

    Raises:
        DatasetError: Says what one device does that has one class of several.
    """
    if num_classes >= 2 or not len(labels) or labels.min() < 0:
        return
    declared = "class_names in the file" if path.suffix == ".npz" else "a folder for each"
    deeper = ""
    if path.is_dir():
        below = folders_below(path, lambda name: name not in PARTS)
        folder, inside = max(below.items(), key=lambda each: len(each[1]), default=(path, []))
        if len(inside) > 1 and folder.name not in PARTS:
            deeper = f"if the folders in {folder} ({', '.join(inside[:3])}) are the classes, give {folder}; "
    raise DatasetError(
        f"{path.name}: there is 1 class, expected at least 2: all {len(labels)} training images are of it; "
        f"{deeper}if there are others that these images lack, {declared}; a device that has one class of "
        f"several makes its file with gkt data pack {shlex.quote(str(path))} --for BUNDLE-OR-LINK "
        "--out mine.npz"
    )
