"""Where a device's images come from: a folder, an array file, or a function of one's own."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.reading.array_file import ArrayFile, ArrayPart, read_array_file
from gkt_core.data.reading.arrays import to_images
from gkt_core.data.reading.image_folder import TEST, TRAIN, VALIDATION, ClassFolder, FolderReader
from gkt_core.data.reading.images import UnreadableImageError, fitted_array, read_image
from gkt_core.data.reading.report import ReadingReport
from gkt_core.errors import ConfigError, DatasetError

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_TEST_PART = "a test part: nothing is trained on it"


@dataclass(frozen=True, slots=True)
class PackTarget:
    """What a bundle wants of its devices' images.

    Attributes:
        class_names: The classes in the bundle's order.
        image_size: Pixels of each side.
        fit: What happens to images that are not square.
        maps: Names that stand for a class.
    """

    class_names: tuple[str, ...]
    image_size: int
    fit: str
    maps: dict[str, str]

    def label(self, name: str) -> int | None:
        """Number the class that a folder or a label names; None if it is none."""
        class_name = self.maps.get(name, name)
        return self.class_names.index(class_name) if class_name in self.class_names else None

    def no_class(self, name: str) -> str:
        """Say that a name is no class, with the one that may be meant."""
        folded = {class_name.casefold(): class_name for class_name in self.class_names}
        close = difflib.get_close_matches(name.casefold(), folded, n=1)
        meant = f" (--map {name}={folded[close[0]]} if it is one)" if close else ""
        return f"no class of the bundle{meant}"


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images with labels: ``[N, S, S, 3] uint8`` and ``[N] int64``."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, chosen: NDArray[np.bool_]) -> Labelled:
        """Some of them."""
        return Labelled(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True, slots=True)
class SourceParts:
    """What a source gives.

    Attributes:
        train: Images to train on; the validation part is drawn from them if there is no other.
        validation: Those that a source keeps apart itself; may be empty.
    """

    train: Labelled
    validation: Labelled


def is_function(source: str) -> bool:
    """Say whether a source is ``module:function``, and no path."""
    return _FUNCTION.fullmatch(source) is not None and not os.path.exists(source)


def read_source(source: str, target: PackTarget, report: ReadingReport) -> SourceParts:
    """Read a folder, an ``.npz`` or what a function yields, with the labels of a bundle.

    Raises:
        DatasetError: It cannot be read, or has nothing of the bundle's classes.
        ConfigError: A map names nothing that is there, or the function cannot be had.
    """
    path = Path(source)
    if is_function(source):
        parts = _from_function(source, target, report)
    elif os.path.isdir(source):
        try:
            parts = _from_folder(path, target, report)
        except OSError as error:
            raise DatasetError(f"cannot read the image folder {path}: {error}") from error
    elif path.suffix == ".npz":
        parts = _from_arrays(path, target, report)
    else:
        raise DatasetError(
            f"no images at {source!r}: expected a folder with one folder of photos a class, an .npz file, or "
            "module:function"
        )
    if not len(parts.train) and not report.refused:
        report.notes.append(f"the bundle's classes are {', '.join(target.class_names)}")
    return parts


def _from_folder(path: Path, target: PackTarget, report: ReadingReport) -> SourceParts:
    reader = FolderReader(path, target.image_size, target.fit, report)
    parts = reader.parts()
    main = reader.classes(parts.get(TRAIN, path))
    unused = set(target.maps)
    train = _read_classes(reader, main, target, unused)
    validation = _none(target)
    for name in VALIDATION:
        if name in parts:
            validation = _read_classes(reader, reader.classes(parts[name]), target, unused)
    if TEST in parts:
        report.leave_out(_TEST_PART, f"{TEST}/")
    _refuse_unused(unused, [folder.name for folder in main])
    return SourceParts(train, validation)


def _read_classes(
    reader: FolderReader, folders: Sequence[ClassFolder], target: PackTarget, unused: set[str]
) -> Labelled:
    wanted: list[tuple[int, Path]] = []
    for folder in folders:
        unused.discard(folder.name)
        label = target.label(folder.name)
        if label is None:
            reader.report.refuse(target.no_class(folder.name), f"{folder.path.relative_to(reader.root)}/")
        else:
            wanted.append((label, folder.path))
    return Labelled(*reader.read(wanted))


def _refuse_unused(unused: set[str], there: Sequence[str]) -> None:
    if unused:
        name = sorted(unused)[0]
        raise ConfigError(f"--map {name}=...: there is no {name}, expected one of {', '.join(there)}")


def _from_arrays(path: Path, target: PackTarget, report: ReadingReport) -> SourceParts:
    file = read_array_file(path, report)
    if file.are_named:
        _refuse_unused(set(target.maps) - set(file.class_names), file.class_names)
    else:
        _refuse_unused(set(target.maps), ["names, and these labels are numbers"])
        if file.class_names and len(file.class_names) != len(target.class_names):
            raise DatasetError(
                f"{path} has {len(file.class_names)} classes, the bundle {len(target.class_names)}: "
                f"{', '.join(target.class_names)}"
            )
        names = ", ".join(f"{number} {name}" for number, name in enumerate(target.class_names[:10]))
        report.notes.append(f"labels are numbers, and taken as the bundle counts: {names}")
    parts = {name: _array_part(path, file, part, target, report) for name, part in file.parts.items()}
    if "test" in parts:
        report.leave_out(_TEST_PART, file.parts["test"].image_key)
    train = parts["train"] if "train" in parts else parts[""]
    validation = parts.get("validation", _none(target))
    report.taken += len(train) + len(validation)
    return SourceParts(train, validation)


def _array_part(
    path: Path, file: ArrayFile, part: ArrayPart, target: PackTarget, report: ReadingReport
) -> Labelled:
    numbers = part.labels
    if file.are_named:
        by_number = [target.label(name) for name in file.class_names]
        outside = numbers[(numbers < 0) | (numbers >= len(by_number))]
        if outside.size:
            raise DatasetError(
                f"{path}: {part.label_key} holds {int(outside[0])}, expected 0 to {len(by_number) - 1}"
            )
        for number, name in enumerate(file.class_names):
            if by_number[number] is None and (num := int((numbers == number).sum())):
                report.refuse(target.no_class(name), f"{part.label_key} {name} ({num} images)")
        lookup = np.asarray([-1 if label is None else label for label in by_number], dtype=np.int64)
        numbers = lookup[numbers]
    elif len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(target.class_names)):
        low, high = int(numbers.min()), int(numbers.max())
        mend = f": if they count from {low}, {part.label_key} -= {low}" if low else ""
        raise DatasetError(
            f"{path}: {part.label_key} holds {low} to {high}, expected 0 to {len(target.class_names) - 1} "
            f"({', '.join(target.class_names)}){mend}"
        )
    chosen = numbers >= 0
    return Labelled(fitted_array(part.images[chosen], target.image_size, target.fit), numbers[chosen])


def _from_function(source: str, target: PackTarget, report: ReadingReport) -> SourceParts:
    module, _, name = source.partition(":")
    # A command's own folder is on the path, not the one that it is called from.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{source} cannot be had: {error}: expected module:function") from error
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    try:
        for number, pair in enumerate(function()):
            image, label = pair
            known = _known(label, target)
            if known is None:
                report.refuse(target.no_class(str(label)), f"item {number} ({label})")
                continue
            try:
                images.append(_pixels(f"{source}, item {number}", image, target, report))
            except UnreadableImageError as error:
                report.refuse(str(error), f"item {number}")
                continue
            labels.append(known)
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"{source} does not yield pairs of an image (array, path, bytes or Pillow's) and a label: {error}"
        ) from error
    report.taken += len(images)
    if not images:
        return SourceParts(_none(target), _none(target))
    return SourceParts(Labelled(np.stack(images), np.asarray(labels, dtype=np.int64)), _none(target))


def _known(label: Any, target: PackTarget) -> int | None:
    if isinstance(label, str):
        return target.label(label)
    number = int(label)
    return number if 0 <= number < len(target.class_names) else None


def _pixels(owner: str, image: Any, target: PackTarget, report: ReadingReport) -> NDArray[np.uint8]:
    if isinstance(image, np.ndarray):
        rgb = to_images(owner, "image", image[None], 1, report)
        return np.asarray(fitted_array(rgb, target.image_size, target.fit)[0])
    if isinstance(image, bytes | bytearray):
        image = io.BytesIO(image)
    elif isinstance(image, str):
        image = Path(image)
    read = read_image(image, target.image_size, target.fit)
    report.converted.update(read.changes)
    return read.pixels


def _none(target: PackTarget) -> Labelled:
    size = target.image_size
    return Labelled(np.zeros((0, size, size, 3), np.uint8), np.zeros(0, np.int64))


def listing(source: str) -> Iterable[str]:
    """Say what lies at a source, in lines that change when files do; nothing of what a function yields."""
    path = Path(source)
    if is_function(source):
        return
    files = sorted(
        Path(folder) / name for folder, _, names in os.walk(path, followlinks=False) for name in names
    )
    for file in files if os.path.isdir(path) else [path]:
        status = file.lstat()
        yield f"{file.relative_to(path).as_posix()} {status.st_size} {status.st_mtime_ns}"
