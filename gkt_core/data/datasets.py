"""Datasets by name or path: digits, cifar10, cifar100, an .npz file, an image folder (CINIC-10 too)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import check_image_size
from gkt_core.data.private_data import check_images, check_integers
from gkt_core.data.reading.array_file import ArrayPart, check_classes_shown, read_array_file
from gkt_core.data.reading.arrays import MAX_CLASSES, to_size
from gkt_core.data.reading.duplicates import note_duplicates
from gkt_core.data.reading.folder_dataset import read_whole_folder
from gkt_core.data.reading.image_folder import FolderReader
from gkt_core.data.reading.images import FITS, fitted_array
from gkt_core.data.reading.refusals import check_several_classes, check_sides, not_a_source
from gkt_core.data.reading.report import ReadingReport
from gkt_core.errors import ConfigError, DatasetError, needs

NAMED_DATASETS = ("digits", "cifar10", "cifar100")
DIGITS_IMAGE_SIZE = 16
FOLDER_IMAGE_SIZE = 32
# Images and labels.
Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled images with a training and a test part.

    Attributes:
        name: What the user called it.
        x_train: ``[N, S, S, 3] uint8``.
        y_train: ``[N] int64``.
        x_test: ``[M, S, S, 3] uint8``.
        y_test: ``[M] int64``.
        sample_ids: ``[N] int64``: position of each training image in the whole training part.
        class_names: One name a class.
        horizontal_flip: Whether a mirrored image is still of its class (not so for digits).
        reading: What happened while a folder or a file was read; empty for the named datasets.
    """

    name: str
    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    sample_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    horizontal_flip: bool
    reading: ReadingReport = field(default_factory=ReadingReport)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return int(self.x_train.shape[1])

    def pixel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel of the training images, in 0..1."""
        scaled = self.x_train.reshape(-1, 3)
        # Sums of integers: exact, and the same whatever the order.
        total = scaled.sum(axis=0, dtype=np.float64)
        squares = np.einsum("nc,nc->c", scaled, scaled, dtype=np.float64)
        mean = total / len(scaled)
        std = np.sqrt(np.maximum(squares / len(scaled) - mean**2, 1e-6))
        return [round(float(m) / 255, 6) for m in mean], [round(max(float(s) / 255, 1e-3), 6) for s in std]


@dataclass(frozen=True, slots=True)
class _Request:
    """How a file or a folder is to be read; see :func:`load_dataset`."""

    image_size: int | None
    fit: str
    seed: int
    num_classes: int | None
    strict: bool
    allow_empty_classes: bool
    report: ReadingReport = field(default_factory=ReadingReport)


def load_dataset(
    source: str,
    *,
    image_size: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    data_root: Path = Path("data"),
    num_classes: int | None = None,
    fit: str = "crop",
    strict: bool = False,
    allow_empty_classes: bool = False,
) -> Dataset:
    """Load a dataset; :attr:`Dataset.reading` says what was taken, converted and left out.

    A class that no training image shows is refused, unless the number of classes or their names are given: in
    an ``.npz``, whose classes are 0 to its highest training label, it mostly means that labels count from 1.

    Args:
        source: ``digits``, ``cifar10``, ``cifar100``, a path to an ``.npz`` or to an image folder.
        image_size: Scale images to this size; by default 16 for digits, 32 for folders, else as stored.
        limit: Keep this many training images, drawn at random.
        seed: Seed of that draw, and of a folder's test split.
        data_root: Where torchvision keeps its downloads.
        num_classes: How many classes there are; by default as many as the labels show.
        fit: What happens to images that are not square: ``crop``, ``pad`` or ``stretch``.
        strict: Refuse a folder with images that cannot be read, instead of leaving them out.
        allow_empty_classes: Take classes without training images as they are: nothing learns them.

    Raises:
        DatasetError: The source is unknown or cannot be read, or labels and images do not fit.
        ConfigError: The image size, limit or seed is out of range.
        MissingExtraError: A library that this source needs is not installed.
    """
    if image_size is not None:
        check_image_size(image_size)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}, expected at least 1 training image")
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected at least 0")
    if fit not in FITS:
        raise ConfigError(f"fit is {fit!r}, expected one of {', '.join(FITS)}")
    path = Path(source)
    request = _Request(image_size, fit, seed, num_classes, strict, allow_empty_classes)
    if source == "digits":
        dataset = _load_digits(image_size or DIGITS_IMAGE_SIZE, seed)
    elif source in ("cifar10", "cifar100"):
        dataset = _load_torchvision(source, data_root)
    elif path.suffix == ".npz":
        dataset = _load_npz(path, request)
    elif os.path.isdir(source):  # unlike Path.is_dir, also answers where reading is not allowed
        dataset = _load_folder(path, request)
    else:
        expected = f"{', '.join(NAMED_DATASETS)}, a path to an .npz file, or a folder with one folder a class"
        raise DatasetError(not_a_source(source, "no dataset", expected))
    if image_size is not None and dataset.image_size != image_size:
        x_train, x_test = (fitted_array(images, image_size) for images in (dataset.x_train, dataset.x_test))
        dataset = replace(dataset, x_train=x_train, x_test=x_test)
    try:
        check_image_size(dataset.image_size)
    except ConfigError as error:
        raise DatasetError(f"{source}: {error}: give --image-size") from error
    dataset = replace(dataset, reading=request.report)
    if limit is not None and limit < len(dataset.x_train):
        keep = np.sort(np.random.default_rng([seed, 11]).permutation(len(dataset.x_train))[:limit])
        dataset = replace(
            dataset,
            x_train=dataset.x_train[keep],
            y_train=dataset.y_train[keep],
            sample_ids=dataset.sample_ids[keep],
        )
    return dataset


def make_dataset(
    name: str,
    train: Part,
    test: Part,
    class_names: Sequence[str] | None,
    *,
    horizontal_flip: bool,
) -> Dataset:
    """Check images ``[N, S, S, 3] uint8`` and labels ``[N]``, and make a dataset of them.

    Without names of the classes the labels are counted.

    Raises:
        DatasetError: Names the part and what is wrong with it.
    """
    parts = []
    for part, (images, labels) in (("train", train), ("test", test)):
        if images.ndim == 4 and images.shape[1] != images.shape[2]:
            side = max(8, min(images.shape[1:3]) // 4 * 4)
            raise DatasetError(
                f"{name}: x_{part} is {list(images.shape)}, expected [N, S, S, 3]: "
                f"give --image-size, such as {side}, and --fit for what is not square"
            )
        check_images(images, f"{name}: x_{part}")
        check_integers(labels, len(images), f"{name}: y_{part}")
        if len(images) == 0:
            raise DatasetError(f"{name}: the {part} part holds no images")
        parts.append((np.ascontiguousarray(images), labels.astype(np.int64)))
    (x_train, y_train), (x_test, y_test) = parts
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DatasetError(f"{name}: training images are {x_train.shape[1:]}, test images {x_test.shape[1:]}")
    # Before a name is made for each: one wild label would ask for billions of classes.
    highest = int(y_train.max())
    if not class_names and highest >= MAX_CLASSES:
        raise DatasetError(f"{name}: y_train holds the label {highest}, expected below {MAX_CLASSES}")
    names = tuple(class_names) if class_names else tuple(str(c) for c in range(highest + 1))
    for part, labels in (("train", y_train), ("test", y_test)):
        outside = labels[(labels < 0) | (labels >= len(names))]
        if outside.size:
            raise DatasetError(
                f"{name}: y_{part} holds the label {int(outside[0])}, {_expected(labels, names, class_names)}"
            )
    if len(names) < 2:
        raise DatasetError(f"{name}: there is {len(names)} class, expected at least 2")
    sample_ids = np.arange(len(x_train), dtype=np.int64)
    return Dataset(name, x_train, y_train, x_test, y_test, sample_ids, names, horizontal_flip)


def _expected(labels: NDArray[np.int64], names: tuple[str, ...], declared: Sequence[str] | None) -> str:
    """What labels are expected, and the line that mends those below 0.

    Classes that only the test part has are for the user to see to.
    """
    lowest, highest = int(labels.min()), int(labels.max())
    named = "class_names names" if declared else "the training part shows"
    if lowest >= 0:
        mend = "" if declared else ": give class_names in the file for classes that it lacks"
        return f"expected 0 to {len(names) - 1}: {named} {len(names)} classes{mend}"
    if lowest == -1 and set(np.unique(labels).tolist()) <= {-1, 1}:
        mend = 'y_train, y_test = (y_train > 0).astype("int64"), (y_test > 0).astype("int64")'
        return f"expected 0 and 1: {mend}"
    # How many there are, if these are all: what counts from below 0 has more than its highest number says.
    last = len(names) - 1 if declared else highest - lowest
    return (
        f"expected 0 to {last}: they are {lowest} to {highest}; if they count from {lowest}, "
        f"y_train, y_test = y_train + {-lowest}, y_test + {-lowest}"
    )


def _load_digits(image_size: int, seed: int) -> Dataset:
    with needs("profile", "scikit-learn"):
        from sklearn.datasets import load_digits  # noqa: PLC0415 - an extra
    digits = load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = fitted_array(np.repeat(gray[..., None], 3, axis=3), image_size)
    labels = digits.target.astype(np.int64)
    # The same test part for every seed of a run: accuracies of different seeds stay comparable.
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:360], np.sort(order[360:])
    names = [str(digit) for digit in range(10)]
    return make_dataset(
        "digits", (images[train], labels[train]), (images[test], labels[test]), names, horizontal_flip=False
    )


def _load_torchvision(name: str, data_root: Path) -> Dataset:
    with needs("profile", "torchvision"):
        from gkt_core.nn.torchvision_datasets import load_cifar  # noqa: PLC0415 - an extra
    train, test, class_names = load_cifar(name, data_root)
    return make_dataset(name, train, test, class_names, horizontal_flip=True)


def _load_npz(path: Path, request: _Request) -> Dataset:
    file = read_array_file(path, request.report)
    parts = dict(file.parts)
    if "" in parts:
        train, test = _fifth_for_testing(parts.pop(""), request.seed)
    else:
        train = parts.pop("train")
        if "test" not in parts and "validation" in parts:
            parts["test"] = parts.pop("validation")
            request.report.notes.append(f"there is no test part: {parts['test'].image_key} is")
        if "test" not in parts:
            train, test = _fifth_for_testing(train, request.seed)
        else:
            test = parts.pop("test")
    for left in parts.values():
        request.report.notes.append(
            f"{left.image_key} is not needed, as each device holds out validation images itself"
        )
    names: Sequence[str] | None = file.class_names or None
    if request.num_classes:
        names = [str(c) for c in range(request.num_classes)]
    elif not request.allow_empty_classes:
        check_classes_shown(path, file, file.parts.get("train") or file.parts[""])
    request.report.taken += len(train.images) + len(test.images)
    size = request.image_size
    if size is None and len(train.images) and len(test.images):
        check_sides(path, train.image_key, train.images)
        check_sides(path, test.image_key, test.images)
    if len(train.labels):
        shown = int(train.labels.max()) + 1
        check_several_classes(path, train.labels, len(names) if names else shown)
    images = [
        part.images
        if size is None
        else to_size(part.image_key, part.images, size, request.fit, request.report)
        for part in (train, test)
    ]
    note_duplicates(images[0], train.labels, request.report, test=images[1])
    return make_dataset(
        path.name, (images[0], train.labels), (images[1], test.labels), names, horizontal_flip=True
    )


def _fifth_for_testing(part: ArrayPart, seed: int) -> tuple[ArrayPart, ArrayPart]:
    order = np.random.default_rng([seed, 12]).permutation(len(part.images))
    num_test = max(1, len(part.images) // 5)
    rows = np.sort(order[num_test:]), np.sort(order[:num_test])
    train, test = (replace(part, images=part.images[row], labels=part.labels[row]) for row in rows)
    return train, test


def _load_folder(path: Path, request: _Request) -> Dataset:
    reader = FolderReader(path, request.image_size or FOLDER_IMAGE_SIZE, request.fit, request.report)
    train, test, class_names = read_whole_folder(
        reader, request.seed, strict=request.strict, allow_empty_classes=request.allow_empty_classes
    )
    check_several_classes(path, train[1], len(class_names))
    note_duplicates(*train, request.report, test=test[0])
    return make_dataset(str(path), train, test, class_names, horizontal_flip=True)
