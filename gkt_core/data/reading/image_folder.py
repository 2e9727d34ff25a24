"""A folder of photos, one folder a class: which files are images, which are not, and why not."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.reading.images import IMAGE_SUFFIXES, UnreadableImageError, read_image
from gkt_core.data.reading.report import ReadingReport, counted, named
from gkt_core.errors import DatasetError

TRAIN, VALIDATION, TEST = "train", ("val", "valid", "validation"), "test"
PARTS = (TRAIN, *VALIDATION, TEST)
# What systems and archives leave in folders, beside names that begin with a dot.
_SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"}
_SYSTEM = "hidden, or the computer's own (._*, __MACOSX, Thumbs.db)"
_LOOP = "a link to a folder that is read already, or above"
_NO_CLASS = "in no class folder"
_CLOSED = "a folder that may not be read, with all that is in it (chmod -R u+rX)"
# How far down class folders are looked for where there are none, and among how many.
_LEVELS, _MOST_FOLDERS = 3, 1000


@dataclass(frozen=True, slots=True)
class ClassFolder:
    """A class as it lies on disk.

    Attributes:
        name: Its name, in composed Unicode (NFC): macOS writes the same name otherwise than Linux.
        path: Its folder.
    """

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class FolderReader:
    """Reads class folders below one root.

    Attributes:
        root: What names in the report are relative to.
        image_size: Pixels of each side.
        fit: What happens to pictures that are not square.
        report: Told what happened.
    """

    root: Path
    image_size: int
    fit: str
    report: ReadingReport

    def parts(self) -> dict[str, Path]:
        """Find ``train``, ``val`` and ``test``; empty where the root holds class folders.

        Raises:
            DatasetError: One part only.
        """
        there = {child.name: child for child in _visible(self.root) if os.path.isdir(child)}
        parts = {name: path for name, path in there.items() if name in PARTS}
        if parts and set(there) == set(parts) and (TRAIN not in parts or len(parts) == 1):
            raise DatasetError(
                f"{self.root} has a {' and a '.join(sorted(parts))} folder only, "
                "expected train and test, or class folders"
                + (f": give {self.root / TRAIN} if the class folders are in it" if TRAIN in parts else "")
            )
        if TRAIN not in parts or len(parts) == 1:
            # A class may be called train, beside bus and tram.
            return {}
        for name in sorted(set(there) - set(parts)):
            self.report.leave_out("neither train nor val nor test", f"{name}/")
        return parts

    def classes(self, path: Path) -> list[ClassFolder]:
        """List the class folders of the root or of a part, by name; whatever lies beside them is reported."""
        folders: list[ClassFolder] = []
        for child in sorted(path.iterdir()):
            name = self._name(child)
            if _is_system(child.name):
                self.report.leave_out(_SYSTEM, f"{name}/" if os.path.isdir(child) else name)
            elif os.path.isdir(child):
                try:
                    child.name.encode()
                except UnicodeEncodeError as error:
                    raise DatasetError(f"the folder name {name} is no text: rename it") from error
                folders.append(ClassFolder(unicodedata.normalize("NFC", child.name), child))
            elif child.suffix.lower() in IMAGE_SUFFIXES:
                self.report.refuse(_NO_CLASS, name)
            else:
                self._leave_out_other(child)
        return sorted(folders, key=lambda folder: folder.name)

    def read(self, folders: Iterable[tuple[int, Path]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Read the images of class folders, each with its label.

        Returns:
            ``[N, S, S, 3] uint8`` and ``[N] int64``; N may be 0.

        Raises:
            PermissionError: A class folder itself may not be read.
        """
        images: list[NDArray[np.uint8]] = []
        labels: list[int] = []
        folders = list(folders)
        # A link to one of them, or to what is above them, would give images the label of another class.
        others = {_identity(each) for _, folder in folders for each in (folder, *folder.absolute().parents)}
        for label, folder in folders:
            # A whole class that is left out would be one file less in a summary that nobody reads.
            os.listdir(folder)
            for file in self._files(folder, others):
                try:
                    image = read_image(file, self.image_size, self.fit)
                except UnreadableImageError as error:
                    self.report.refuse(str(error), self._name(file))
                    continue
                self.report.converted.update(image.changes)
                images.append(image.pixels)
                labels.append(label)
        self.report.taken += len(images)
        shape = (0, self.image_size, self.image_size, 3)
        stacked = np.stack(images) if images else np.zeros(shape, np.uint8)
        return stacked, np.asarray(labels, dtype=np.int64)

    def refuse_folder(self, reason: str, folder: Path) -> None:
        """Leave out every image of a folder, or the folder itself where it has none."""
        for name in [self._name(file) for file in self._files(folder, set())] or [f"{self._name(folder)}/"]:
            self.report.refuse(reason, name)

    def _files(self, folder: Path, others: set[tuple[int, int]]) -> list[Path]:
        """Every image file of a class, however deep, in an order that is the same everywhere."""
        files: list[Path] = []
        seen = set(others)
        waiting = [folder]
        while waiting:
            for child in self._children(waiting.pop()):
                if _is_system(child.name):
                    self.report.leave_out(_SYSTEM, self._name(child))
                elif os.path.isdir(child):
                    if (identity := _identity(child)) in seen:
                        self.report.leave_out(_LOOP, self._name(child))
                    else:
                        seen.add(identity)
                        waiting.append(child)
                elif not child.exists():
                    self.report.refuse("a link that leads nowhere", self._name(child))
                elif child.suffix.lower() in IMAGE_SUFFIXES:
                    files.append(child)
                else:
                    self._leave_out_other(child)
        return sorted(files)

    def _children(self, folder: Path) -> list[Path]:
        """List a folder of a class; one that may not be read is left out like a file."""
        try:
            return sorted(folder.iterdir())
        except PermissionError:
            self.report.refuse(_CLOSED, f"{self._name(folder)}/")
            return []

    def _leave_out_other(self, path: Path) -> None:
        suffix = path.suffix.lower() or "without a suffix"
        self.report.leave_out(f"no image that is known ({suffix})", self._name(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix().encode(errors="replace").decode()


def folders_below(root: Path, is_class: Callable[[str], bool]) -> dict[Path, list[str]]:
    """Find folders below a root, not far, that hold class folders, or train and others that do.

    Args:
        root: Where to begin; class folders of its own are not looked for.
        is_class: Says whether a folder's name is that of a class.

    Returns:
        The nearest ones, with the names of some classes in them.
    """
    level = [root]
    for _ in range(_LEVELS):
        level = [child for folder in level for child in _folders_in(folder)][:_MOST_FOLDERS]
        below: dict[Path, list[str]] = {}
        for folder in level:
            if names := [child.name for child in _folders_in(folder) if is_class(child.name)]:
                beside = [child.name for child in _folders_in(folder.parent) if child.name in PARTS]
                is_part = folder.name in beside and TRAIN in beside and len(beside) > 1
                whole = folder.parent if is_part and folder.parent != root else folder
                below.setdefault(whole, names)
        if below:
            return below
    return {}


def _folders_in(folder: Path) -> list[Path]:
    try:
        return [child for child in _visible(folder) if child.is_dir() and not child.is_symlink()]
    except OSError:
        return []


def refuse_unread(report: ReadingReport) -> None:
    """Refuse files that look like images and were not taken, for ``--strict``.

    Raises:
        DatasetError: Names them with the reasons.
    """
    if report.refused:
        reasons = "; ".join(f"{reason}: {named(names)}" for reason, names in sorted(report.refused.items()))
        num = sum(map(len, report.refused.values()))
        raise DatasetError(
            f"{counted(num, 'image')} cannot be taken ({reasons}): mend or remove them, or leave out --strict"
        )


def left_out_of(report: ReadingReport, prefix: str = "") -> str:
    """Say what was refused below a folder, for the message that it holds nothing; empty if nothing was."""
    refused = {
        reason: inside
        for reason, names in sorted(report.refused.items())
        if (inside := [name for name in names if name.startswith(prefix)])
    }
    words = "; ".join(f"{len(names)}: {reason}" for reason, names in refused.items())
    return f" that can be read ({words})" if words else ""


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _visible(path: Path) -> Sequence[Path]:
    return [child for child in sorted(path.iterdir()) if not _is_system(child.name)]


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
