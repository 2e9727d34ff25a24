"""One device's private file from photos or arrays that lie on it, with a bundle's classes and image size."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gkt_core.bundle.manifest import Manifest
from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.data.pack_sources import is_function, read_source
from gkt_core.data.pack_target import NO_CLASS, Labelled, PackTarget, composed
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.data.reading.duplicates import note_duplicates
from gkt_core.data.reading.image_folder import refuse_unread
from gkt_core.data.reading.images import FITS
from gkt_core.data.reading.report import ReadingReport, counted
from gkt_core.errors import ArtifactError, ConfigError, DatasetError

PHOTOS = "Photos of this device"
OWNER_KEY_BYTES = 32
_LEAST = 3


@dataclass(frozen=True, slots=True)
class PackOptions(CheckedOptions):
    """How a device's photos become its private file.

    Attributes:
        maps: A folder, or a label, that stands for a class of the bundle, as dogs=dog.
        fit: What happens to images that are not square: cut to the middle, black added, or stretched.
        validation_share: Share of the images that is never trained on.
        allow_empty_classes: Take labels that are numbers, from 1 on, as they are: this device has none of the
            first class.
        strict: Refuse images that cannot be read and folders that are no class, instead of leaving them out.
    """

    maps: tuple[str, ...] = option((), flag="--map", group=PHOTOS)
    fit: str = option("crop", choices=FITS, group=PHOTOS)
    validation_share: float = option(0.1, above=0, below=1, group=PHOTOS)
    allow_empty_classes: bool = option(False, group=PHOTOS)
    strict: bool = option(False, group=PHOTOS)

    def mapping(self) -> dict[str, str]:
        """Give the maps by the name that stands for a class.

        Raises:
            ConfigError: One is not of the form NAME=CLASS.
        """
        pairs = {}
        for each in self.maps:
            name, sign, class_name = each.partition("=")
            if not (name and sign and class_name):
                raise ConfigError(f"--map is {each!r}, expected one such as dogs=dog")
            pairs[name] = class_name
        return pairs


def new_owner_key() -> bytes:
    """Draw the secret from which the sample ids of one owner follow."""
    return secrets.token_bytes(OWNER_KEY_BYTES)


def target_of(manifest: Manifest, options: PackOptions, source: str) -> PackTarget:
    """Say what a bundle wants of its devices' images.

    Args:
        manifest: Of the bundle.
        options: How they are read.
        source: Where they are: a folder, an ``.npz`` or ``module:function``.

    Raises:
        ArtifactError: The bundle does not name its classes.
        ConfigError: A map leads to no class of the bundle.
    """
    if not manifest.class_names:
        raise ArtifactError(
            f"the bundle does not name its {manifest.num_classes} classes, so that {_labels_of(source)} "
            "cannot be matched with them: export it with gkt export --classes or --split"
        )
    for name, class_name in options.mapping().items():
        if composed(class_name) not in map(composed, manifest.class_names):
            raise ConfigError(
                f"--map {name}={class_name}: there is no class {class_name} in the bundle, expected one of "
                f"{', '.join(manifest.class_names)}"
            )
    return PackTarget(
        tuple(manifest.class_names),
        manifest.image_size,
        options.fit,
        options.mapping(),
        options.allow_empty_classes,
    )


def _labels_of(source: str) -> str:
    if is_function(source):
        return f"the labels that {source} yields"
    return f"the {'labels' if Path(source).suffix == '.npz' else 'folders'} in {source}"


def pack(
    source: str,
    target: PackTarget,
    options: PackOptions,
    owner_key: bytes,
    before: PrivateData | None = None,
) -> tuple[PrivateData, ReadingReport]:
    """Read images and make one device's data of them.

    Args:
        source: A folder of class folders, an ``.npz``, or ``module:function``.
        target: Classes and image size of the bundle.
        options: How.
        owner_key: The owner's secret; the same one gives the same images the same ids.
        before: What was packed with this key before: images that were trained on stay in that part, as do
            those that were not.

    Raises:
        DatasetError: The source cannot be read, or holds fewer than three images of the bundle's classes.
    """
    report = ReadingReport()
    labelled = read_source(source, target, report)
    if options.strict:
        refuse_unread(report)
    if len(labelled.train) < _LEAST - bool(len(labelled.validation)):
        raise DatasetError(
            f"{source} holds {counted(len(labelled.train), 'image')} of the bundle's classes "
            f"({', '.join(target.class_names)}), expected at least {_LEAST}: two to train and one to validate"
            + _where_more(source, target, _LEAST - len(labelled.train))
            + "".join(f"; {line.strip()}" for line in list(report.lines())[1:])
            + (
                "; --map NAME=CLASS maps what is one of them"
                if any(reason.startswith(NO_CLASS) for reason in report.left_out)
                else ""
            )
        )
    digests = _digests(labelled.train.images, owner_key)
    if len(labelled.validation):
        train, validation = labelled.train, labelled.validation
        # One numbering for both: an image that is in both parts must not have one id twice.
        ids = sample_ids(digests + _digests(validation.images, owner_key))
        parts = [(train, ids[: len(train)]), (validation, ids[len(train) :])]
    else:
        ids = sample_ids(digests)
        held = _held_out(digests, ids, options.validation_share, before)
        parts = [(labelled.train.rows(~held), ids[~held]), (labelled.train.rows(held), ids[held])]
    first, second = (_samples(part, part_ids) for part, part_ids in parts)
    if len(labelled.validation):
        note_duplicates(first.images, first.labels, report, test=second.images)
    else:
        note_duplicates(labelled.train.images, labelled.train.labels, report)
    return PrivateData(first, second, target.class_names), report


def _where_more(source: str, target: PackTarget, num: int) -> str:
    if not os.path.isdir(source):
        return ""
    folder, names = Path(source).absolute(), target.class_names
    if folder.name in names and not any((folder / name).is_dir() for name in names):
        return f": it is the folder of one class, give the one that it lies in: {folder.parent}"
    return f": put {max(1, num)} more into {Path(source) / target.class_names[0]}/ or that of another class"


def sample_ids(digests: list[bytes]) -> NDArray[np.int64]:
    """Number samples by what they show.

    An id pairs an image with its soft labels on one device, from round to round, and follows the image when
    the file is packed again: another image never gets an old one's id. It comes from a keyed hash: two
    owners' ids do not meet, and who sees ids cannot find out whether a photo that they know is among them.

    Args:
        digests: The keyed hash of each image; the second of two equal ones counts on.

    Returns:
        ``[N] int64``, at least 0.
    """
    seen: Counter[bytes] = Counter()
    ids = np.zeros(len(digests), np.int64)
    taken: set[int] = set()
    for index, digest in enumerate(digests):
        number = _id_of(digest, seen[digest])
        # One in 2**63 for each pair; counted on all the same.
        while number in taken:
            seen[digest] += 1
            number = _id_of(digest, seen[digest])
        seen[digest] += 1
        taken.add(number)
        ids[index] = number
    return ids


def _id_of(digest: bytes, number: int) -> int:
    hashed = hashlib.blake2b(digest + number.to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(hashed, "little") >> 1


def _digests(images: NDArray[np.uint8], owner_key: bytes) -> list[bytes]:
    return [
        hashlib.blake2b(np.ascontiguousarray(image).data, key=owner_key, digest_size=32).digest()
        for image in images
    ]


def _held_out(
    digests: list[bytes], ids: NDArray[np.int64], share: float, before: PrivateData | None
) -> NDArray[np.bool_]:
    """Choose the validation part by what images show: equal ones stay together, always."""
    num = len(digests)
    wanted = min(max(1, round(num * share)), num - 2)
    held, has_part = np.zeros(num, bool), np.zeros(num, bool)
    groups: dict[bytes, list[int]] = {}
    for index, digest in enumerate(digests):
        groups.setdefault(digest, []).append(index)
    if before is not None:
        was_trained = np.isin(ids, before.train.sample_ids)
        was_held = np.isin(ids, before.validation.sample_ids)
        for rows in groups.values():
            has_part[rows] = (was_trained | was_held)[rows].any()
            held[rows] = was_held[rows].any() and not was_trained[rows].any()
    for digest in sorted(groups):
        rows = groups[digest]
        if not has_part[rows].any() and held.sum() + len(rows) <= wanted:
            held[rows] = True
    if not held.any() or num - held.sum() < 2:
        # Nearly all images are one, or a few: some of each stay in both parts, rather than a class in one.
        held[:] = False
        held[np.linspace(0, num - 1, wanted + 2).round().astype(np.intp)[1:-1]] = True
    return held


def _samples(part: Labelled, ids: NDArray[np.int64]) -> Samples:
    order = np.argsort(ids)
    return Samples(np.ascontiguousarray(part.images[order]), part.labels[order], ids[order])


def class_counts(data: PrivateData) -> dict[str, int]:
    """Count all images of each class, those without any included."""
    labels = np.concatenate([data.train.labels, data.validation.labels])
    counts = np.bincount(labels, minlength=data.num_classes).tolist()
    return dict(zip(data.class_names, counts, strict=True))


def contact_sheet_path(out: Path) -> Path:
    """Where the contact sheet of a private file lies."""
    return out.with_name(f"{out.stem}-contact-sheet.png")
