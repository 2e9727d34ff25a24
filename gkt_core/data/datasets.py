"""Datasets by name or path: digits, cifar10, cifar100, an .npz file, an image folder (CINIC-10 too)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import check_image_size
from gkt_core.data.private_data import check_images, check_integers, read_arrays
from gkt_core.errors import ConfigError, DatasetError, needs

NAMED_DATASETS = ("digits", "cifar10", "cifar100")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
DIGITS_IMAGE_SIZE = 16
FOLDER_IMAGE_SIZE = 32
MAX_CLASSES = 100_000
_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
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
    """

    name: str
    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    sample_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    horizontal_flip: bool

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


def load_dataset(
    source: str,
    *,
    image_size: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    data_root: Path = Path("data"),
    num_classes: int | None = None,
) -> Dataset:
    """Load a dataset.

    A class that no training image shows is taken as it is in an ``.npz``, whose classes are 0 to its highest
    training label: nothing learns it. A class folder without images is refused.

    Args:
        source: ``digits``, ``cifar10``, ``cifar100``, a path to an ``.npz`` or to an image folder.
        image_size: Scale images to this size; by default 16 for digits, 32 for folders, else as stored.
        limit: Keep this many training images, drawn at random.
        seed: Seed of that draw, and of a folder's test split.
        data_root: Where torchvision keeps its downloads.
        num_classes: How many classes there are; by default as many as the labels show.

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
    path = Path(source)
    if source == "digits":
        dataset = _load_digits(image_size or DIGITS_IMAGE_SIZE, seed)
    elif source in ("cifar10", "cifar100"):
        dataset = _load_torchvision(source, data_root)
    elif path.suffix == ".npz":
        dataset = _load_npz(path, num_classes)
    elif os.path.isdir(source):  # unlike Path.is_dir, also answers where reading is not allowed
        dataset = _load_folder(path, image_size or FOLDER_IMAGE_SIZE, seed)
    else:
        raise DatasetError(
            f"no dataset {source!r}: expected {', '.join(NAMED_DATASETS)}, a path to an .npz file, "
            "or a folder with one folder of images a class"
        )
    if image_size is not None and dataset.image_size != image_size:
        x_train, x_test = (_scale(images, image_size) for images in (dataset.x_train, dataset.x_test))
        dataset = replace(dataset, x_train=x_train, x_test=x_test)
    try:
        check_image_size(dataset.image_size)
    except ConfigError as error:
        raise DatasetError(f"{source}: {error}: give --image-size") from error
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
                f"{name}: y_{part} holds the label {int(outside[0])}, expected 0 to {len(names) - 1}: "
                f"the training part shows {len(names)} classes"
            )
    if len(names) < 2:
        raise DatasetError(f"{name}: there is {len(names)} class, expected at least 2")
    sample_ids = np.arange(len(x_train), dtype=np.int64)
    return Dataset(name, x_train, y_train, x_test, y_test, sample_ids, names, horizontal_flip)


def _load_digits(image_size: int, seed: int) -> Dataset:
    with needs("profile", "scikit-learn"):
        from sklearn.datasets import load_digits  # noqa: PLC0415 - an extra
    digits = load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = _scale(np.repeat(gray[..., None], 3, axis=3), image_size)
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


def _load_npz(path: Path, num_classes: int | None) -> Dataset:
    arrays = read_arrays(path, _NPZ_KEYS)
    x_train, y_train, x_test, y_test = (arrays[key] for key in _NPZ_KEYS)
    names = [str(c) for c in range(num_classes)] if num_classes else None
    return make_dataset(path.name, (x_train, y_train), (x_test, y_test), names, horizontal_flip=True)


def _class_folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _load_folder(path: Path, image_size: int, seed: int) -> Dataset:
    parts = {part: path / part for part in ("train", "test") if os.path.isdir(path / part)}
    if len(parts) == 1:
        (part,) = parts
        raise DatasetError(f"{path} has a {part} folder only, expected train and test, or class folders")
    try:
        class_names = [folder.name for folder in _class_folders(parts.get("train", path))]
        if parts:
            train = _read_images(parts["train"], class_names, image_size)
            test = _read_images(parts["test"], class_names, image_size)
            shown = train[1]
        else:
            images, shown = _read_images(path, class_names, image_size)
            order = np.random.default_rng([seed, 12]).permutation(len(images))
            num_test = max(1, len(images) // 5)
            train = images[order[num_test:]], shown[order[num_test:]]
            test = images[order[:num_test]], shown[order[:num_test]]
    except OSError as error:
        raise DatasetError(f"cannot read the image folder {path}: {error}") from error
    empty = sorted(set(range(len(class_names))) - set(shown.tolist()))
    if empty:
        raise DatasetError(f"{path}: class folder {class_names[empty[0]]} holds no images: fill or remove it")
    return make_dataset(str(path), train, test, class_names, horizontal_flip=True)


def _read_images(path: Path, class_names: Sequence[str], image_size: int) -> Part:
    with needs("profile", "Pillow"):
        from PIL import Image  # noqa: PLC0415 - an extra
    unknown = sorted({folder.name for folder in _class_folders(path)} - set(class_names))
    if unknown:
        raise DatasetError(f"{path} has the class {unknown[0]}, which the training part lacks")
    images, labels = [], []
    for label, class_name in enumerate(class_names):
        files = sorted(f for f in (path / class_name).glob("**/*") if f.suffix.lower() in IMAGE_SUFFIXES)
        for file in files:
            try:
                with Image.open(file) as opened:
                    # Pillow would turn all but the darkest of their pixels white.
                    if opened.mode.startswith(("I", "F")):
                        raise ValueError("more than 8 bits a channel")
                    picture = opened.convert("RGB")
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                raise DatasetError(f"cannot read the image {file}: {error}: mend or remove it") from error
            if picture.size != (image_size, image_size):
                picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
            images.append(np.asarray(picture, dtype=np.uint8))
            labels.append(label)
    if not images:
        raise DatasetError(f"{path} holds no images: expected one folder a class, with image files")
    return np.stack(images), np.asarray(labels, dtype=np.int64)


def _scale(images: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    with needs("profile", "Pillow"):
        from PIL import Image  # noqa: PLC0415 - an extra
    size = (image_size, image_size)
    return np.stack(
        [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)) for image in images]
    )
