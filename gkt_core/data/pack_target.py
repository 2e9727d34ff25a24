"""What a bundle wants of its devices' images, and what a source gives."""

from __future__ import annotations

import difflib
import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def composed(name: str) -> str:
    """Give a name as it is compared: macOS writes the same one otherwise than Linux."""
    return unicodedata.normalize("NFC", name)


# How a reason begins why something was left out whose name is none of the classes.
NO_CLASS = "no class of the bundle"


@dataclass(frozen=True, slots=True)
class PackTarget:
    """What a bundle wants of its devices' images.

    Attributes:
        class_names: The classes in the bundle's order.
        image_size: Pixels of each side.
        fit: What happens to images that are not square.
        maps: Names that stand for a class.
        allow_empty_classes: Whether numbers may begin at 1, as they may count from there.
    """

    class_names: tuple[str, ...]
    image_size: int
    fit: str
    maps: dict[str, str]
    allow_empty_classes: bool = False

    def label(self, name: str) -> int | None:
        """Number the class that a folder or a label names, in capitals or not; None if it is none."""
        maps = {composed(each): class_name for each, class_name in self.maps.items()}
        class_name = composed(maps.get(composed(name), name))
        names = [composed(each) for each in self.class_names]
        if class_name in names:
            return names.index(class_name)
        folded = [each.casefold() for each in names]
        return folded.index(class_name.casefold()) if folded.count(class_name.casefold()) == 1 else None

    def spelling(self, name: str) -> str:
        """Say which class a name was taken as that only its capitals tell from; empty for its own name."""
        label = self.label(name)
        maps = {composed(each) for each in self.maps}
        if label is None or composed(name) in {composed(self.class_names[label]), *maps}:
            return ""
        return f"{name} is taken as {self.class_names[label]}"

    def no_class(self, name: str, shown: str = "") -> str:
        """Say that a name is no class, with the one that may be meant."""
        folded = {class_name.casefold(): class_name for class_name in self.class_names}
        close = difflib.get_close_matches(name.casefold(), folded, n=1)
        meant = f" (--map {name}={folded[close[0]]} if it is one)" if close else ""
        return NO_CLASS + (f": {shown}" if shown else "") + meant


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


def no_images(target: PackTarget) -> Labelled:
    """Give no images, of the right size."""
    size = target.image_size
    return Labelled(np.zeros((0, size, size, 3), np.uint8), np.zeros(0, np.int64))
