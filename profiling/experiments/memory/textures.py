"""Images of any size with something to see in them: gratings, whose direction is the class, and noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_textures(path: Path, *, image_size: int, num_classes: int, num_train: int, num_test: int) -> None:
    """Write a data set as ``gkt data split`` takes it: ``x_train [N, S, S, 3] uint8`` and so on."""
    random = np.random.default_rng(0)
    images, labels = {}, {}
    for part, num in (("train", num_train), ("test", num_test)):
        labels[part] = np.arange(num) % num_classes
        images[part] = np.stack(
            [_texture(random, label / num_classes, image_size) for label in labels[part].tolist()]
        )
    np.savez(
        path,
        x_train=images["train"],
        y_train=labels["train"],
        x_test=images["test"],
        y_test=labels["test"],
    )


def _texture(random: np.random.Generator, direction: float, image_size: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:image_size, :image_size] / image_size
    along = np.cos(np.pi * direction) * rows + np.sin(np.pi * direction) * columns
    waves = np.sin(2 * np.pi * (random.uniform(4, 8) * along + random.random()))
    colours = random.uniform(0.2, 0.8, 3)
    noise = random.normal(0, 0.1, (image_size, image_size, 3))
    pixels = np.clip(colours + 0.2 * waves[..., None] + noise, 0, 1)
    return np.asarray(255 * pixels, dtype=np.uint8)
