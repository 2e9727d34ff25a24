"""Images that do not fit: what they are, what would, and a command that does it, as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gkt_core.data.datasets import load_dataset
from gkt_core.errors import DatasetError
from tests.conftest import Gkt

NUM = 24
LABELS = np.arange(NUM) % 3


def write(path: Path, height: int, width: int, labels: Any = LABELS, **more: Any) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (NUM, height, width, 3), dtype=np.uint8)
    arrays = {"x_train": images, "y_train": labels, "x_test": images[:6], "y_test": labels[:6]}
    np.savez(path, **arrays, **more)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DatasetError) as refused:
        load_dataset(str(path))
    return str(refused.value)


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(24, 32, 24), (33, 33, 32), (300, 300, 256), (400, 300, 256), (6, 6, 8), (10, 3, 8)],
)
def test_the_command_in_the_refusal_makes_it_so(
    gkt: Gkt, tmp_path: Path, height: int, width: int, side: int
) -> None:
    path = write(tmp_path / "my images.npz", height, width)
    said = refusal(path)
    assert f"images {height} px high and {width} px wide; expected squares" in said
    assert "a multiple of 4 from 8 to 256" in said
    assert ("--fit crop" in said) == ("--fit pad" in said) == (height != width)
    (command,) = re.findall(r": gkt (data split .*? --out) split", said)
    assert f"--image-size {side}" in command
    if side == 24:
        done = gkt(*shlex.split(command), tmp_path / "split", "--clients", "2")
        assert done.returncode == 0, done.stderr
        assert "images 24 px" in done.stdout
    fit = {"fit": "crop"} if height != width else {}
    assert load_dataset(str(path), image_size=side, **fit).image_size == side


def test_images_of_one_class(tmp_path: Path) -> None:
    said = refusal(write(tmp_path / "one.npz", 8, 8, np.zeros(NUM, int)))
    assert f"there is 1 class, expected at least 2: all {NUM} training images are of it" in said
    assert "class_names in the file" in said
    assert f"gkt data pack {tmp_path / 'one.npz'} --for BUNDLE-OR-LINK --out mine.npz" in said
    named = write(tmp_path / "named.npz", 8, 8, np.zeros(NUM, int), class_names=np.array(["cat", "dog"]))
    assert load_dataset(str(named)).class_names == ("cat", "dog")


def test_one_folder_too_high_may_be_why_there_is_one_class(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        folder = tmp_path / "up" / "photos" / name
        folder.mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    said = refusal(tmp_path / "up")
    inner = tmp_path / "up" / "photos"
    assert f"if the folders in {inner} (cat, dog) are the classes, give {inner}; if there are others" in said
    assert load_dataset(str(inner)).class_names == ("cat", "dog")


def test_labels_below_0_are_counted(tmp_path: Path) -> None:
    """Ten classes from -1 are ten, which the highest number does not say."""
    labels = np.arange(NUM) % 10 - 1
    said = refusal(write(tmp_path / "low.npz", 8, 8, labels))
    assert "y_train holds the label -1, expected 0 to 9: they are -1 to 8; if they count from -1, " in said
    assert said.endswith("y_train, y_test = y_train + 1, y_test + 1")
    named = np.array([f"class {number}" for number in range(12)])
    assert "expected 0 to 11: " in refusal(write(tmp_path / "named.npz", 8, 8, labels, class_names=named))
