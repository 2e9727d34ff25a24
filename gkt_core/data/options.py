"""Options that name a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.run_config import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE
from gkt_core.data.datasets import Dataset, load_dataset
from gkt_core.data.reading.images import FITS

IMAGES = "Images and their split"


@dataclass(frozen=True, slots=True)
class DatasetOptions(CheckedOptions):
    """Which images, and in which size.

    Attributes:
        dataset: digits (scikit-learn's, scaled up), cifar10 or cifar100 (downloaded), PATH.npz with x_train,
            y_train, x_test, y_test (or images and labels), or a folder with one folder of images a class.
        image_size: Scale images to this many pixels.
        limit: Use only this many training images, validation included.
        data_root: Where downloads are kept.
        fit: What happens to images that are not square: cut to the middle, black added, or stretched.
        strict: Refuse images that cannot be read, instead of leaving them out.
        allow_empty_classes: Take classes without training images as they are, and labels that do not begin
            at 0 or have gaps.
    """

    dataset: str = "digits"
    image_size: int | None = option(
        None,
        low=MIN_IMAGE_SIZE,
        high=MAX_IMAGE_SIZE,
        multiple_of=4,
        shown_default="16 for digits, 32 for folders, else as stored",
        group=IMAGES,
    )
    limit: int | None = option(None, low=1, shown_default="all", group=IMAGES)
    data_root: Path = option(Path("data"), group=IMAGES)
    fit: str = option("crop", choices=FITS, group=IMAGES)
    strict: bool = option(False, group=IMAGES)
    allow_empty_classes: bool = option(False, group=IMAGES)

    def load(self, seed: int) -> Dataset:
        """Load the images as :func:`gkt_core.data.datasets.load_dataset` does; the seed is of its draws."""
        return load_dataset(
            self.dataset,
            image_size=self.image_size,
            limit=self.limit,
            seed=seed,
            data_root=self.data_root,
            fit=self.fit,
            strict=self.strict,
            allow_empty_classes=self.allow_empty_classes,
        )
