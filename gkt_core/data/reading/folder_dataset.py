"""A folder of photos as a training and a test part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.reading.image_folder import (
    TEST,
    TRAIN,
    VALIDATION,
    ClassFolder,
    FolderReader,
    left_out_of,
    refuse_unread,
)
from gkt_core.data.reading.refusals import unreadable_folder
from gkt_core.errors import DatasetError

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_whole_folder(
    reader: FolderReader, seed: int, *, strict: bool, allow_empty_classes: bool
) -> tuple[Part, Part, list[str]]:
    """Read a folder with ``train`` and ``test`` in it, or one of which a fifth is kept for testing.

    Args:
        reader: Knows the folder, and is told what is left out.
        seed: Of the draw of that fifth.
        strict: Refuse images that cannot be taken.
        allow_empty_classes: Take a class without images as it is.

    Returns:
        Images and labels to train on, those to test on, and the class names.

    Raises:
        DatasetError: No images, an empty class, or a part that does not fit.
    """
    root, report = reader.root, reader.report
    try:
        parts = reader.parts()
        folders = reader.classes(parts.get(TRAIN, root))
        names = sorted({folder.name for folder in folders})
        images, labels = train = _read_part(reader, folders, names)
        test = _read_test_part(reader, parts, names) if parts else None
    except OSError as error:
        raise unreadable_folder(root, error) from error
    if strict:
        refuse_unread(report)
    _refuse_empty(reader, parts.get(TRAIN, root), images)
    empty = sorted(set(range(len(names))) - set(labels.tolist()))
    if empty and not allow_empty_classes:
        first = next(folder for folder in folders if folder.name == names[empty[0]])
        why = left_out_of(report, first.path.relative_to(root).as_posix() + "/")
        raise DatasetError(
            f"{root}: class folder {first.name} holds no images{why}: fill or remove it, "
            "or give --allow-empty-classes"
        )
    if test is None:
        order = np.random.default_rng([seed, 12]).permutation(len(images))
        num_test = max(1, len(images) // 5)
        train = images[order[num_test:]], labels[order[num_test:]]
        test = images[order[:num_test]], labels[order[:num_test]]
    return train, test, names


def _read_part(reader: FolderReader, folders: list[ClassFolder], names: list[str]) -> Part:
    return reader.read((names.index(folder.name), folder.path) for folder in folders)


def _read_test_part(reader: FolderReader, parts: dict[str, Path], names: list[str]) -> Part:
    chosen = TEST if TEST in parts else next(name for name in VALIDATION if name in parts)
    path = parts[chosen]
    folders = reader.classes(path)
    unknown = sorted({folder.name for folder in folders} - set(names))
    if unknown:
        raise DatasetError(f"{path} has the class {unknown[0]}, which the training part lacks")
    test = _read_part(reader, folders, names)
    if chosen != TEST:
        reader.report.notes.append(f"there is no test folder: {chosen} is the test part")
    for name in sorted(set(parts) - {TRAIN, chosen}):
        reader.report.leave_out("not needed, as each device holds out validation images itself", f"{name}/")
    _refuse_empty(reader, path, test[0])
    return test


def _refuse_empty(reader: FolderReader, path: Path, images: NDArray[np.uint8]) -> None:
    if not len(images):
        why = left_out_of(reader.report)
        raise DatasetError(f"{path} holds no images{why}: expected one folder a class, with image files")
