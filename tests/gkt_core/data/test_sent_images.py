"""Images as files: what they weigh, and what arrives."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gkt_core.data.private_data import Samples
from gkt_core.data.sent_images import sent_images
from gkt_core.errors import ConfigError


def samples(num: int = 5, size: int = 32) -> Samples:
    """Smooth pictures, as photographs are."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (num, 4, 4, 3), np.uint8)
    images = np.stack([np.asarray(Image.fromarray(each).resize((size, size), 2)) for each in coarse])
    return Samples(images, np.arange(num) % 2, np.arange(num))


def error(first: Samples, second: Samples) -> float:
    return float(np.abs(first.images.astype(np.int64) - second.images).mean())


def test_png_changes_nothing_and_jpeg_little() -> None:
    given = samples()
    (png, png_bytes), (fine, fine_bytes), (coarse, coarse_bytes) = (
        sent_images(given, each) for each in ("png", "jpeg95", "jpeg75")
    )
    assert error(given, png) == 0
    assert 0 < error(given, fine) < error(given, coarse) < 5
    assert coarse_bytes < fine_bytes < png_bytes
    assert (png.labels == given.labels).all()
    assert (png.sample_ids == given.sample_ids).all()


def test_bytes_are_those_of_the_files() -> None:
    given, total = samples(3), 0
    for image in given.images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=75, optimize=True)
        total += len(file.getvalue())
    assert sent_images(given, "jpeg75")[1] == total


def test_another_format() -> None:
    with pytest.raises(ConfigError, match="cannot be sent as 'gif', expected one of png, jpeg75, jpeg95"):
        sent_images(samples(), "gif")
