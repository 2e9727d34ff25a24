"""A device's private data: one .npz file with images, labels and sample ids; it never leaves the device."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import DatasetError, InputError
from gkt_core.files import full_disk_named

# What gkt data split writes beside one file a device.
SPLIT_NAME = "partition.json"
TEST_NAME = "test.npz"
PRETRAINING_NAME = "pretraining.npz"
CONTACT_SHEET_NAME = "contact-sheet.png"

DATA_FORMAT_VERSION = 1
VERSION_KEY, OWNER_KEY = "format_version", "owner_key"
_REMEDY = "give a device file made by gkt data split or gkt data pack"
_PART = ("images", "labels", "sample_ids")
_KEYS = (*_PART, *(f"validation_{key}" for key in _PART), "class_names")

# What numpy and zipfile raise for files that are none, or damaged. TypeError: a .npy of another name.
_BROKEN_NPZ = (ValueError, EOFError, RuntimeError, TypeError, zipfile.BadZipFile, zlib.error)


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


def save_private_data(path: Path, data: PrivateData, owner_key: bytes = b"") -> None:
    """Write one device's file, whole or not at all; ``docs/data-format.md`` says what is in it.

    Args:
        path: The file.
        data: What the device holds.
        owner_key: The secret that its sample ids follow from, if they do.
    """
    arrays: dict[str, Any] = {
        VERSION_KEY: np.int64(DATA_FORMAT_VERSION),
        "images": data.train.images,
        "labels": data.train.labels,
        "sample_ids": data.train.sample_ids,
        "validation_images": data.validation.images,
        "validation_labels": data.validation.labels,
        "validation_sample_ids": data.validation.sample_ids,
        "class_names": np.asarray(data.class_names, dtype=np.str_),
    }
    if owner_key:
        arrays[OWNER_KEY] = np.frombuffer(owner_key, np.uint8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # The images of a device may be most of its memory: written as they are, without a copy.
        with full_disk_named(path), temporary.open("wb") as stream:
            np.savez(stream, **arrays)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}: choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_private_data(path: Path) -> PrivateData:
    """Read and check one device's file.

    Raises:
        DatasetError: The file cannot be read, its arrays do not fit together, or a newer gkt made it.
    """
    _check_there(path, _REMEDY)
    arrays = read_arrays(path, _KEYS, f": {_REMEDY}")
    _check_version(path)
    names = arrays["class_names"]
    if names.dtype.kind != "U":
        raise DatasetError(f"{path}: class_names is {names.dtype}, expected text: {_REMEDY}")
    class_names = tuple(map(str, names.reshape(-1)))
    if len(set(class_names)) < len(class_names):
        raise DatasetError(
            f"{path}: class_names holds a name twice: {', '.join(class_names[:20])}: {_REMEDY}"
        )
    train = _check_samples(path, "", arrays, len(class_names))
    validation = _check_samples(path, "validation_", arrays, len(class_names))
    if len(train) < 2:
        num = "1 training image" if len(train) == 1 else "no training images"
        raise DatasetError(f"{path} holds {num}, expected at least 2: pack or split more of them")
    if train.images.shape[1:] != validation.images.shape[1:]:
        raise DatasetError(f"{path}: training and validation images differ in size")
    if np.intersect1d(train.sample_ids, validation.sample_ids).size:
        raise DatasetError(f"{path}: a sample is in both the training and the validation part")
    return PrivateData(train, validation, class_names)


def is_private_data(path: Path) -> bool:
    """Say whether an ``.npz`` is a device's file, and not images that are to be packed.

    Raises:
        DatasetError: The file is no readable ``.npz``.
    """
    _check_there(path, _REMEDY)
    return not {"sample_ids", "validation_sample_ids"}.isdisjoint(array_names(path))


def owner_key_of(path: Path) -> bytes:
    """Read the secret that the sample ids of a packed file follow from; empty if it has none.

    Raises:
        DatasetError: The file cannot be read.
    """
    if OWNER_KEY not in array_names(path):
        return b""
    return bytes(read_arrays(path, [OWNER_KEY])[OWNER_KEY].astype(np.uint8).tobytes())


def _check_there(path: Path, remedy: str) -> None:
    if not os.path.exists(path):
        raise DatasetError(f"cannot read {path}: there is no such file: {remedy}")
    if os.path.isdir(path):
        raise DatasetError(
            f"{path} is a folder: {remedy}; of a folder of photos gkt data pack {path} --for BUNDLE-OR-LINK "
            "--out mine.npz makes one"
        )


def _check_version(path: Path) -> None:
    # Files of the first releases have no number.
    if VERSION_KEY not in array_names(path):
        return
    version = read_arrays(path, [VERSION_KEY])[VERSION_KEY]
    if version.shape != () or version.dtype.kind not in "iu" or not 1 <= int(version) <= DATA_FORMAT_VERSION:
        raise DatasetError(
            f"{path} has format version {version}, this gkt reads 1 to {DATA_FORMAT_VERSION}: "
            "install the version that made it, or a newer one"
        )


def load_test_data(path: Path) -> Samples:
    """Read a test set as ``gkt data split`` and ``gkt demo`` write it.

    Raises:
        DatasetError: The file cannot be read, or its arrays do not fit together.
    """
    remedy = "give a test set made by gkt data split"
    _check_there(path, remedy)
    arrays = read_arrays(path, ("images", "labels"), f": {remedy}")
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
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
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
