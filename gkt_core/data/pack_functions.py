"""A device's images from a function of the user's own: cameras, databases."""

from __future__ import annotations

import importlib
import io
import logging
import operator
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.pack_target import Labelled, PackTarget, SourceParts, no_images
from gkt_core.data.reading.arrays import to_images, to_size
from gkt_core.data.reading.images import UnreadableImageError, read_image
from gkt_core.data.reading.report import ReadingReport
from gkt_core.errors import ConfigError, DatasetError


def read_function(source: str, target: PackTarget, report: ReadingReport) -> SourceParts:
    """Take what a function of the user's yields: pairs of an image and a label.

    Args:
        source: ``module:function``; modules of the folder that the command is called from are there.
        target: What the bundle wants.
        report: Told what was converted and left out.

    Raises:
        ConfigError: There is no such function.
        DatasetError: It fails, or yields something else.
    """
    module, _, name = source.partition(":")
    # A command's own folder is on the path, not the one that it is called from.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{source} cannot be had: {error}: expected module:function") from error
    if not callable(function):
        raise ConfigError(f"{source} cannot be had: it is no function: expected module:function")
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for number, item in enumerate(_items(source, function)):
        try:
            image, label = item
            known = _known(label, target)
            if known is None:
                report.refuse(target.no_class(str(label)), f"item {number} ({label})")
                continue
            pixels = _pixels(f"{source}, item {number}", image, target, report)
        except UnreadableImageError as error:
            report.refuse(str(error), f"item {number}")
            continue
        except (TypeError, ValueError) as error:
            raise DatasetError(
                f"{source} does not yield pairs of an image (array, path, bytes or Pillow's) and a label: "
                f"{error}"
            ) from error
        images.append(pixels)
        labels.append(known)
    report.taken += len(images)
    if not images:
        return SourceParts(no_images(target), no_images(target))
    return SourceParts(Labelled(np.stack(images), np.asarray(labels, dtype=np.int64)), no_images(target))


def _items(source: str, function: Any) -> Iterator[Any]:
    """Call a function of the user's, whose errors are its own."""
    try:
        yield from function()
    except Exception as error:
        logging.getLogger(__name__).debug("raised in %s", source, exc_info=True)
        raise DatasetError(
            f"{source} failed: {type(error).__name__}: {error}: mend it; -vv shows where"
        ) from error


def _known(label: Any, target: PackTarget) -> int | None:
    if isinstance(label, str):
        return target.label(label)
    number = operator.index(label)
    return number if 0 <= number < len(target.class_names) else None


def _pixels(owner: str, image: Any, target: PackTarget, report: ReadingReport) -> NDArray[np.uint8]:
    if isinstance(image, np.ndarray):
        # Of one image it cannot be told whether it is dark or counts to 1.
        if image.dtype.kind == "f" and np.isfinite(image).all() and image.max(initial=0) > 1:
            raise DatasetError(
                f"{owner}: the image is {image.dtype} up to {image.max():g}, expected uint8, or floats in "
                '0 to 1: yield image.astype("uint8") if 255 is white'
            )
        rgb = to_images(owner, "image", image[None], 1, report)
        return np.asarray(to_size("image", rgb, target.image_size, target.fit, report)[0])
    if isinstance(image, bytes | bytearray):
        image = io.BytesIO(image)
    elif isinstance(image, str):
        image = Path(image)
    read = read_image(image, target.image_size, target.fit)
    report.converted.update(read.changes)
    return read.pixels
