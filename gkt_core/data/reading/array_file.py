"""An .npz file under whatever names: images and labels, of a training and a test part or of one whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.private_data import array_names, read_arrays
from gkt_core.data.reading.arrays import Labels, check_shown, to_images, to_labels
from gkt_core.data.reading.report import ReadingReport
from gkt_core.errors import DatasetError

USUAL_KEYS = ("x_train", "y_train", "x_test", "y_test")
CLASS_NAMES = "class_names"
_IMAGE_WORDS = {"x", "image", "images", "img", "imgs", "data"}
_LABEL_WORDS = {"y", "label", "labels", "target", "targets"}
_PART_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}


@dataclass(frozen=True, slots=True)
class ArrayPart:
    """Images and labels of one part.

    Attributes:
        image_key: What the file calls its images.
        label_key: What it calls its labels.
        images: ``[N, H, W, 3] uint8``.
        labels: ``[N] int64``.
    """

    image_key: str
    label_key: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """What an ``.npz`` holds.

    Attributes:
        parts: By name: ``train``, ``test``, ``validation``, or ``""`` for one that is not split.
        class_names: Where the file says them, as names or one-hot width; else empty.
        are_named: Whether they are real names and not numbers.
    """

    parts: dict[str, ArrayPart]
    class_names: tuple[str, ...]
    are_named: bool


def read_array_file(path: Path, report: ReadingReport, *, test_part: str = "") -> ArrayFile:
    """Read images and labels of an ``.npz``, whatever they are called, as what they certainly are.

    Args:
        path: The file.
        report: Told what was converted.
        test_part: Why a test part is left out unread; by default it is read.

    Raises:
        DatasetError: The file cannot be read, its arrays have no names that say which is which, or their
            meaning is not certain.
    """
    keys = _keys_by_part(path)
    if test_part and "test" in keys:
        report.leave_out(test_part, keys.pop("test")[0])
    arrays = read_arrays(path, [key for pair in keys.values() for key in pair])
    declared = _class_names(path) if CLASS_NAMES in array_names(path) else ()
    pixels: dict[str, NDArray[np.uint8]] = {}
    labels: dict[str, Labels] = {}
    for part, (image_key, label_key) in keys.items():
        values = arrays[label_key]
        pixels[part] = to_images(
            path.name, image_key, arrays[image_key], len(values) if values.ndim else 0, report
        )
        labels[part] = to_labels(path.name, label_key, values, len(pixels[part]), report)
    main = labels["train" if "train" in keys else ""]
    names = declared or main.names
    parts = {}
    for part, (image_key, label_key) in keys.items():
        numbers = labels[part].numbers
        if labels[part].are_named:
            numbers = _renumbered(path, label_key, numbers, labels[part].names, names)
        parts[part] = ArrayPart(image_key, label_key, pixels[part], numbers)
    return ArrayFile(parts, names, bool(declared) or main.are_named)


def check_classes_shown(path: Path, file: ArrayFile, part: ArrayPart) -> None:
    """Refuse labels with gaps, where nothing says how many classes there are; see :func:`check_shown`."""
    if not file.class_names:
        check_shown(path.name, part.label_key, part.labels)


def _keys_by_part(path: Path) -> dict[str, tuple[str, str]]:
    """Find out which array is what, by the words in its name."""
    there = sorted(array_names(path))
    meanings: dict[tuple[str, str], list[str]] = {}
    for key in there:
        words = [word for word in re.split(r"[^a-z]+", key.lower()) if word]
        part = [_PART_WORDS[word] for word in words if word in _PART_WORDS]
        rest = [word for word in words if word not in _PART_WORDS]
        # xtrain and trainX are said too.
        if len(words) == 1 and not part:
            rest, part = _split_word(words[0])
        if len(rest) == 1 and len(part) <= 1:
            kind = "images" if rest[0] in _IMAGE_WORDS else "labels" if rest[0] in _LABEL_WORDS else ""
            if kind:
                meanings.setdefault((part[0] if part else "", kind), []).append(key)
    for (of_part, kind), same in meanings.items():
        if len(same) > 1:
            where = f"the {of_part} part" if of_part else "one part"
            raise DatasetError(
                f"{path} has {' and '.join(same)}, both could be the {kind} of {where}: keep one of them"
            )
    parts = {part for part, _ in meanings}
    pairs = {
        part: (meanings[part, "images"][0], meanings[part, "labels"][0])
        for part in ("", "train", "test", "validation")
        if (part, "images") in meanings and (part, "labels") in meanings
    }
    incomplete = sorted(parts - set(pairs))
    if incomplete or not ("train" in pairs or "" in pairs):
        missing = [key for key in USUAL_KEYS if key not in there]
        raise DatasetError(
            f"{path} has no {', '.join(missing)}, expected {', '.join(USUAL_KEYS)}, or images and labels; it "
            f"holds {', '.join(there) or 'nothing'}: arrays = np.load({path.name!r}); "
            f'np.savez("mended.npz", images=arrays[...], labels=arrays[...])'
        )
    return pairs


def _split_word(word: str) -> tuple[list[str], list[str]]:
    for part in sorted(_PART_WORDS, key=len, reverse=True):
        for rest in (word.removesuffix(part), word.removeprefix(part)):
            if rest and rest != word:
                return [rest], [_PART_WORDS[part]]
    return [word], []


def _class_names(path: Path) -> tuple[str, ...]:
    values: NDArray[Any] = read_arrays(path, [CLASS_NAMES])[CLASS_NAMES].reshape(-1)
    if values.dtype.kind != "U":
        raise DatasetError(f"{path}: {CLASS_NAMES} is {values.dtype}, expected text")
    return tuple(map(str, values))


def _renumbered(
    path: Path, key: str, labels: NDArray[np.int64], theirs: tuple[str, ...], names: tuple[str, ...]
) -> NDArray[np.int64]:
    """Give labels that were numbered in one part's order the numbers of all parts'."""
    unknown = [name for name in theirs if name not in names]
    if unknown:
        raise DatasetError(
            f"{path.name}: {key} holds the class {unknown[0]!r}, expected one of {', '.join(names[:20])}"
        )
    return np.asarray([names.index(name) for name in theirs], dtype=np.int64)[labels]
