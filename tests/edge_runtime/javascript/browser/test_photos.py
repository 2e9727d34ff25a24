"""Photos of every kind become the pixels that Python makes of them, or a sentence says why not."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, expect

from gkt_core.data.private_data import load_private_data
from gkt_core.data.reading.images import read_image
from tests.edge_runtime.javascript.browser.phone import LONGEST, kept_files, page_link, phone
from tests.edge_runtime.javascript.test_whole_run import CLASSES, bundle
from tests.server_app.served import Serve

__all__ = ["bundle"]

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif("GKT_TEST_DATA" not in os.environ, reason="needs GKT_TEST_DATA with cifar10.npz"),
]

SIZE, ORIENTATION = 32, 0x0112
# Versions of Pillow scale a level apart; decoders of JPEG round colours otherwise.
SCALED, LOSSY = 1, 4


def portrait(first: int) -> Image.Image:
    """A picture that is another one however it is turned, and with another first colour."""
    rows, columns = np.mgrid[:90, :60]
    colours = np.stack([2 * rows, 4 * columns, rows + columns], axis=2).astype(np.uint8)
    return Image.fromarray(np.roll(colours, first, axis=2))


def saved(folder: Path, name: str, picture: Image.Image, orientation: int = 1, **options: object) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = folder / name
    picture.save(path, exif=exif, **options)  # type: ignore[arg-type]  # as the format has them
    return path


@pytest.fixture
def taken(tmp_path: Path) -> dict[Path, int]:
    """Photos that a phone takes, and how far their pixels may be from Python's."""
    folder = tmp_path / "photos"
    folder.mkdir()
    upright = portrait(0)
    photos = {}
    for each in range(1, 9):
        photos[saved(folder, f"{each}.jpg", portrait(1), each, quality=95, subsampling=0)] = LOSSY
        photos[saved(folder, f"{each}.webp", portrait(2), each, lossless=True)] = SCALED
        photos[saved(folder, f"{each}.png", upright, each)] = SCALED
    photos[saved(folder, "lossy.webp", portrait(1).transpose(Image.Transpose.ROTATE_90), 6)] = LOSSY
    alpha = upright.convert("RGBA")
    alpha.putalpha(Image.fromarray(np.full((90, 60), 255, np.uint8) * (np.mgrid[:90, :60][1] > 20)))
    photos[saved(folder, "cut-out.png", alpha)] = SCALED
    photos[saved(folder, "grey.png", upright.convert("L"))] = SCALED
    return photos


def test_upright_pixels_are_pythons(
    chromium: Browser, bundle: Path, serve: Callable[..., Serve], tmp_path: Path, taken: dict[Path, int]
) -> None:
    server = serve("--artifacts", bundle, "--host", "0.0.0.0", "--clients", "1", "--rounds", "1")
    with phone(chromium) as context:
        page = context.new_page()
        page.goto(page_link(server))
        # Dragged from outside into a class, with one that is no picture.
        files = [(path.name, path.read_bytes()) for path in taken]
        files += [("broken.jpg", b"\xff\xd8\xff\xe0 no picture"), ("IMG_2.heic", b"\0\0\0\x18ftypheic")]
        page.locator(f'fieldset[data-class="{CLASSES[0]}"]').evaluate(
            """(box, files) => {
              const moved = new DataTransfer();
              for (const [name, bytes] of files) moved.items.add(new File([Uint8Array.from(bytes)], name));
              const how = { dataTransfer: moved, bubbles: true, cancelable: true };
              box.dispatchEvent(new DragEvent("drop", how));
            }""",
            [[name, list(data)] for name, data in files],
        )
        expect(page.locator(f'fieldset[data-class="{CLASSES[0]}"] li')).to_have_count(
            len(taken), timeout=LONGEST
        )
        status = page.get_by_role("status")
        expect(status).to_contain_text("broken.jpg cannot be read as a picture, it was left out.")
        expect(status).to_contain_text("IMG_2.heic is HEIC, which this browser cannot read.")
        # A class without photos is allowed, and said.
        expect(status).to_contain_text(f"No photos of {', '.join(CLASSES[1:])}: that is allowed")
        # One is dragged from a class to another, with the mouse.
        page.locator("li", has=page.get_by_role("img", name="grey.png")).drag_to(
            page.locator(f'fieldset[data-class="{CLASSES[1]}"]')
        )
        expect(page.locator(f'fieldset[data-class="{CLASSES[1]}"] li')).to_have_count(1)
        expect(status).to_contain_text(f"No photos of {', '.join(CLASSES[2:])}: that is allowed")
        page.get_by_role("button", name="Show what would be sent").click()
        expect(page.get_by_role("heading", name="2. What would be sent")).to_be_visible(timeout=LONGEST)
        (tmp_path / "packed.npz").write_bytes(kept_files(page)["packed.npz"])
    packed = load_private_data(tmp_path / "packed.npz")
    images = np.concatenate([packed.train.images, packed.validation.images]).astype(np.int64)
    labels = np.concatenate([packed.train.labels, packed.validation.labels])
    assert sorted(labels.tolist()) == [0] * (len(taken) - 1) + [1]
    for path, tolerance in taken.items():
        expected = read_image(io.BytesIO(path.read_bytes()), SIZE).pixels.astype(np.int64)
        assert nearest(images, expected) <= tolerance, path.name


def nearest(images: NDArray[np.int64], expected: NDArray[np.int64]) -> int:
    """How far the nearest of the images is, in its worst pixel."""
    return int(np.abs(images - expected).max(axis=(1, 2, 3)).min())
