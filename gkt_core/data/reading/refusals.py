"""What images of a file are, what would fit, and the command that makes it so."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE
from gkt_core.data.reading.image_folder import PARTS, folders_below
from gkt_core.errors import DatasetError


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
