"""Where a device's images come from: a folder, an array file, or a function of one's own."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gkt_core.data.pack_functions import read_function
from gkt_core.data.pack_target import Labelled, PackTarget, SourceParts, composed, no_images
from gkt_core.data.reading.array_file import ArrayFile, ArrayPart, read_array_file
from gkt_core.data.reading.arrays import to_size
from gkt_core.data.reading.image_folder import (
    TEST,
    TRAIN,
    VALIDATION,
    ClassFolder,
    FolderReader,
    folders_below,
)
from gkt_core.data.reading.refusals import not_a_source, unreadable_folder
from gkt_core.data.reading.report import ReadingReport, counted
from gkt_core.errors import ConfigError, DatasetError

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_EXPECTED = "a folder with one folder of photos a class, an .npz file, or module:function"
_TEST_PART = "a test part: nothing is trained on it"


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
        parts = read_function(source, target, report)
    elif os.path.isdir(source):
        try:
            parts = _from_folder(path, target, report)
        except OSError as error:
            raise unreadable_folder(path, error) from error
    elif path.suffix == ".npz":
        parts = _from_arrays(path, target, report)
    else:
        raise DatasetError(not_a_source(source, "no images at", _EXPECTED))
    if not len(parts.train) and not report.refused:
        report.notes.append(f"the bundle's classes are {', '.join(target.class_names)}")
    return parts


def _from_folder(path: Path, target: PackTarget, report: ReadingReport) -> SourceParts:
    reader = FolderReader(path, target.image_size, target.fit, report)
    parts = reader.parts()
    main = reader.classes(parts.get(TRAIN, path))
    if not main and report.refused:
        first, second = (path / name for name in target.class_names[:2])
        report.notes.append(
            f"the photos lie in {path} itself: make a folder for each class, {first}/ and {second}/ and so "
            "on, and move each photo into that of its class"
        )
    if all(target.label(folder.name) is None for folder in main):
        _refuse_too_high(path, target)
    unused = {composed(name) for name in target.maps}
    train = _read_classes(reader, main, target, unused)
    validation = no_images(target)
    for name in VALIDATION:
        if name in parts:
            validation = _read_classes(reader, reader.classes(parts[name]), target, unused)
    if TEST in parts:
        report.leave_out(_TEST_PART, f"{TEST}/")
    _refuse_unused(unused, [folder.name for folder in main])
    return SourceParts(train, validation)


def _refuse_too_high(path: Path, target: PackTarget) -> None:
    """Refuse a folder whose folders hold the class folders: mapped, all photos would be of one class."""
    below = folders_below(path, lambda name: target.label(name) is not None)
    if not below:
        return
    named = [f"{shlex.quote(str(folder))} ({', '.join(names[:3])})" for folder, names in below.items()]
    others = f", or one of {len(named)}: {', '.join(named[1:6])}" if len(named) > 1 else ""
    raise DatasetError(
        f"no folder in {path} is a class of the bundle; the class folders lie deeper, in {named[0]}{others}: "
        f"give that folder, gkt data pack {shlex.quote(str(next(iter(below))))}"
    )


def _read_classes(
    reader: FolderReader, folders: Sequence[ClassFolder], target: PackTarget, unused: set[str]
) -> Labelled:
    wanted: list[tuple[int, Path]] = []
    for folder in folders:
        unused.discard(folder.name)
        label = target.label(folder.name)
        if label is None:
            shown = f"{folder.path.relative_to(reader.root)}/"
            reader.refuse_folder(target.no_class(folder.name, shown), folder.path)
            continue
        if spelling := target.spelling(folder.name):
            reader.report.notes.append(spelling)
        wanted.append((label, folder.path))
    return Labelled(*reader.read(wanted))


def _refuse_unused(unused: set[str], there: Sequence[str]) -> None:
    if unused:
        name = sorted(unused)[0]
        raise ConfigError(f"--map {name}=...: there is no {name}, expected one of {', '.join(there)}")


def _from_arrays(path: Path, target: PackTarget, report: ReadingReport) -> SourceParts:
    file = read_array_file(path, report, test_part=_TEST_PART)
    if file.are_named:
        there = {composed(name) for name in file.class_names}
        _refuse_unused({composed(name) for name in target.maps} - there, file.class_names)
    else:
        _refuse_unused(set(target.maps), ["names, and these labels are numbers"])
        if file.class_names and len(file.class_names) != len(target.class_names):
            key = next(iter(file.parts.values())).label_key
            counted = ", ".join(f"{number} {name}" for number, name in enumerate(target.class_names[:20]))
            raise DatasetError(
                f"{path} has {len(file.class_names)} classes, the bundle {len(target.class_names)}: "
                f"{key} = {key}.argmax(axis=1)   # if they count as the bundle does: {counted}; else "
                f"{key} = np.array([...])[{key}.argmax(axis=1)]   # with the names of these "
                f"{len(file.class_names)} in their order"
            )
        names = ", ".join(f"{number} {name}" for number, name in enumerate(target.class_names[:10]))
        report.notes.append(f"labels are numbers, and taken as the bundle counts: {names}")
    parts = {name: _array_part(path, file, part, target, report) for name, part in file.parts.items()}
    train = parts["train"] if "train" in parts else parts[""]
    validation = parts.get("validation", no_images(target))
    report.taken += len(train) + len(validation)
    return SourceParts(train, validation)


def _array_part(
    path: Path, file: ArrayFile, part: ArrayPart, target: PackTarget, report: ReadingReport
) -> Labelled:
    numbers = part.labels
    if file.are_named:
        by_number = [target.label(name) for name in file.class_names]
        report.notes += filter(None, map(target.spelling, file.class_names))
        outside = numbers[(numbers < 0) | (numbers >= len(by_number))]
        if outside.size:
            raise DatasetError(
                f"{path}: {part.label_key} holds {int(outside[0])}, expected 0 to {len(by_number) - 1}"
            )
        for number, name in enumerate(file.class_names):
            if by_number[number] is None and (num := int((numbers == number).sum())):
                report.refuse(target.no_class(name), f"{part.label_key} {name} ({counted(num, 'image')})")
        lookup = np.asarray([-1 if label is None else label for label in by_number], dtype=np.int64)
        numbers = lookup[numbers]
    else:
        _check_numbers(path, part, target)
    chosen = numbers >= 0
    images = to_size(part.image_key, part.images[chosen], target.image_size, target.fit, report)
    return Labelled(images, numbers[chosen])


def _check_numbers(path: Path, part: ArrayPart, target: PackTarget) -> None:
    """Refuse labels that are outside of the bundle's classes, or may count from 1."""
    numbers, key, last = part.labels, part.label_key, len(target.class_names) - 1
    if not len(numbers):
        return
    low, high = int(numbers.min()), int(numbers.max())
    shift = f"{key} {'+' if low < 0 else '-'}= {abs(low)}"
    if low >= 0 and high <= last:
        if low == 1 and not target.allow_empty_classes:
            first = target.class_names[0]
            raise DatasetError(
                f"{path}: {key} holds {low} to {high}, and no 0, which is {first}: if they count from 1, "
                f"{shift}; if this device has no {first}, --allow-empty-classes"
            )
        return
    if low and high - low <= last:
        mend = f"if they count from {low}, {shift}"
    else:
        keep = f"({key} >= 0) & ({key} <= {last})" if low < 0 else f"{key} <= {last}"
        first = f"if they count from 1, first {shift}; " if low == 1 else ""
        mend = (
            f"{first}if the others are no classes, keep = {keep}; {part.image_key}, {key} = "
            f"{part.image_key}[keep], {key}[keep]"
        )
    names = ", ".join(target.class_names[:20])
    raise DatasetError(f"{path}: {key} holds {low} to {high}, expected 0 to {last} ({names}): {mend}")


def listing(source: str) -> Iterable[str]:
    """Say what lies at a source, in lines that change when files do; nothing of what a function yields."""
    path = Path(source)
    if is_function(source):
        return
    if not os.path.isdir(path):
        yield from _file_line(path, path)
        return
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        status = os.stat(folder)
        # Links may lead in a circle.
        if (identity := (status.st_dev, status.st_ino)) in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders.sort()
        for name in sorted(names):
            yield from _file_line(Path(folder, name), path)


def _file_line(file: Path, root: Path) -> Iterable[str]:
    # A file that goes at this moment, or a link that leads nowhere, is as good as not there.
    with contextlib.suppress(OSError):
        status = file.stat()
        yield f"{file.relative_to(root).as_posix()} {status.st_size} {status.st_mtime_ns}"
