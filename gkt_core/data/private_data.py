"""A device's private data: one .npz file with images, labels and sample ids; it never leaves the device."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import DatasetError

# What gkt data split writes beside one file a device.
SPLIT_NAME = "partition.json"
TEST_NAME = "test.npz"
PRETRAINING_NAME = "pretraining.npz"
CONTACT_SHEET_NAME = "contact-sheet.png"

_PART = ("images", "labels", "sample_ids")
_KEYS = (*_PART, *(f"validation_{key}" for key in _PART), "class_names")

# What numpy and zipfile raise for files that are none, or damaged. TypeError: a .npy of another name.
_BROKEN_NPZ = (OSError, ValueError, EOFError, RuntimeError, TypeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True)
class Samples:
    """Labelled images with their ids.

    Attributes:
        images: ``[N, S, S, 3] uint8``.
        labels: ``[N] int64``.
        sample_ids: ``[N] int64``, unique, ascending.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sample_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class PrivateData:
    """What one device holds."""

    train: Samples
    validation: Samples
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes, those that this device lacks included."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return int(self.train.images.shape[1])


def save_private_data(path: Path, data: PrivateData) -> None:
    """Write one device's file."""
    np.savez(
        path,
        images=data.train.images,
        labels=data.train.labels,
        sample_ids=data.train.sample_ids,
        validation_images=data.validation.images,
        validation_labels=data.validation.labels,
        validation_sample_ids=data.validation.sample_ids,
        class_names=np.asarray(data.class_names, dtype=np.str_),
    )


def load_private_data(path: Path) -> PrivateData:
    """Read and check one device's file.

    Raises:
        DatasetError: The file cannot be read, or its arrays do not fit together.
    """
    arrays = read_arrays(path, _KEYS, ": give a device file made by gkt data split")
    class_names = tuple(str(name) for name in arrays["class_names"].reshape(-1))
    train = _check_samples(path, "", arrays, len(class_names))
    validation = _check_samples(path, "validation_", arrays, len(class_names))
    if len(train) < 2:
        raise DatasetError(f"{path} holds {len(train)} training images, expected at least 2")
    if train.images.shape[1:] != validation.images.shape[1:]:
        raise DatasetError(f"{path}: training and validation images differ in size")
    if np.intersect1d(train.sample_ids, validation.sample_ids).size:
        raise DatasetError(f"{path}: a sample is in both the training and the validation part")
    return PrivateData(train, validation, class_names)


def load_test_data(path: Path) -> Samples:
    """Read a test set as ``gkt data split`` and ``gkt demo`` write it.

    Raises:
        DatasetError: The file cannot be read, or its arrays do not fit together.
    """
    arrays = read_arrays(path, ("images", "labels"), ": give a test set made by gkt data split")
    labels = arrays["labels"]
    arrays["sample_ids"] = np.arange(labels.size, dtype=np.int64)
    num_classes = int(labels.max(initial=0)) + 1 if labels.dtype.kind in "iu" else 0
    return _check_samples(path, "", arrays, num_classes)


def read_arrays(path: Path, keys: Sequence[str], remedy: str = "") -> dict[str, NDArray[Any]]:
    """Read named arrays of an ``.npz`` file, never pickled ones; others in the file are ignored.

    Raises:
        DatasetError: The file is no readable ``.npz``, or lacks an array; ``remedy`` ends that message.
    """
    with _opened(path) as archive:
        missing = [key for key in keys if key not in archive]
        if missing:
            raise DatasetError(f"{path} has no {', '.join(missing)}, expected {', '.join(keys)}{remedy}")
        # A member that is no array comes as bytes.
        return {key: np.asarray(archive[key]) for key in keys}


def array_names(path: Path) -> tuple[str, ...]:
    """List the arrays of an ``.npz`` file.

    Raises:
        DatasetError: The file is no readable ``.npz``.
    """
    with _opened(path) as archive:
        return tuple(archive)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    try:
        # Opened here: where the archive is broken, numpy would leave its own file open.
        with path.open("rb") as stream:
            # numpy would take anything else for a pickle, and advise to load that.
            if not zipfile.is_zipfile(stream):
                raise DatasetError(f"cannot read {path}: it is no .npz file, which np.savez writes")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as archive:
                yield archive
    except _BROKEN_NPZ as error:
        raise DatasetError(f"cannot read {path}: {error}") from error


def check_images(images: NDArray[Any], name: str, remedy: str = "") -> None:
    """Refuse arrays that are no images ``[N, S, S, 3] uint8``.

    Raises:
        DatasetError: Names the array and what is expected.
    """
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise DatasetError(f"{name} is {list(images.shape)}, expected [N, S, S, 3]")
    if images.dtype != np.uint8:
        is_spoilt = images.dtype.kind == "f" and not np.isfinite(images).all()
        holds = ", with NaN or infinity" if is_spoilt else ""
        raise DatasetError(f"{name} is {images.dtype}{holds}, expected uint8 (0 to 255){remedy}")


def check_integers(values: NDArray[Any], num: int, name: str) -> None:
    """Refuse arrays that are no whole numbers ``[num]``.

    Raises:
        DatasetError: Names the array and what is expected.
    """
    if values.shape != (num,) or values.dtype.kind not in "iu":
        raise DatasetError(f"{name} is {values.dtype} {list(values.shape)}, expected integers [{num}]")


def _check_samples(path: Path, prefix: str, arrays: dict[str, NDArray[Any]], classes: int) -> Samples:
    images, labels, sample_ids = (arrays[prefix + key] for key in _PART)
    check_images(images, f"{path}: {prefix}images", ": make the file again with gkt data split")
    check_integers(labels, len(images), f"{path}: {prefix}labels")
    check_integers(sample_ids, len(images), f"{path}: {prefix}sample_ids")
    labels, sample_ids = labels.astype(np.int64), sample_ids.astype(np.int64)
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise DatasetError(
            f"{path}: {prefix}labels holds {int(outside[0])}, expected 0 to {classes - 1}: "
            "mend the labels or add to class_names, or make the file again with gkt data split"
        )
    if np.unique(sample_ids).size != len(sample_ids):
        raise DatasetError(f"{path}: {prefix}sample_ids are not unique")
    order = np.argsort(sample_ids)
    return Samples(np.ascontiguousarray(images[order]), labels[order], sample_ids[order])
