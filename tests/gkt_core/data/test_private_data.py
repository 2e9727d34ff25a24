"""A device's file and a test set: what is read, and a named error for whatever does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gkt_core.data.command import data
from gkt_core.data.private_data import is_private_data, load_private_data, load_test_data
from gkt_core.errors import DatasetError


def show(path: Path) -> None:
    result = CliRunner().invoke(data, ["show", str(path)])
    if result.exception:
        raise result.exception


def device_file(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "images": np.zeros((4, 8, 8, 3), np.uint8),
        "labels": np.array([0, 1, 2, 0]),
        "sample_ids": np.array([7, 3, 9, 1]),
        "validation_images": np.zeros((2, 8, 8, 3), np.uint8),
        "validation_labels": np.array([2, 1]),
        "validation_sample_ids": np.array([4, 2]),
        "class_names": np.array(["bird", "cat", "dog"]),
    }
    arrays = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    np.savez(path, **arrays)
    return path


def test_a_device_file_is_read_in_the_order_of_its_ids(tmp_path: Path) -> None:
    pictures = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    private = load_private_data(device_file(tmp_path / "d.npz", images=pictures))
    assert private.train.sample_ids.tolist() == [1, 3, 7, 9]
    assert private.train.labels.tolist() == [0, 1, 0, 2]
    assert private.train.images[:, 0, 0, 0].tolist() == [3, 1, 0, 2]
    assert private.validation.sample_ids.tolist() == [2, 4]
    assert private.class_names == ("bird", "cat", "dog")
    assert (private.num_classes, private.image_size) == (3, 8)


IMAGES = np.zeros((4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"images": None}, "has no images, expected images, labels, .*made by gkt data split"),
        ({"validation_labels": None, "class_names": None}, "has no validation_labels, class_names"),
        ({"images": IMAGES.astype(np.float32)}, r"images is float32, expected uint8 \(0 to 255\)"),
        ({"images": IMAGES.astype(np.int64)}, "images is int64, expected uint8"),
        ({"validation_images": IMAGES[:2] / 1}, "validation_images is float64, expected uint8"),
        ({"images": IMAGES[..., 0]}, r"images is \[4, 8, 8\], expected \[N, S, S, 3\]"),
        ({"images": IMAGES[:, :4]}, r"images is \[4, 4, 8, 3\]"),
        ({"images": IMAGES[:3]}, r"labels is int64 \[4\], expected integers \[3\]"),
        ({"labels": np.zeros(4)}, r"labels is float64 \[4\], expected integers"),
        ({"sample_ids": np.arange(3)}, r"sample_ids is int64 \[3\]"),
        ({"sample_ids": np.array(["a", "b", "c", "d"])}, "sample_ids is <U1"),
        ({"validation_sample_ids": np.array([[4, 2]])}, r"validation_sample_ids is int64 \[1, 2\]"),
        ({"sample_ids": np.array([7, 3, 9, 3])}, "d.npz: sample_ids are not unique"),
        ({"validation_sample_ids": np.array([5, 5])}, "validation_sample_ids are not unique"),
        (
            {"validation_sample_ids": np.array([5, 9])},
            "a sample is in both the training and the validation part",
        ),
        ({"labels": np.array([0, 1, 3, 0])}, "labels holds 3, expected 0 to 2"),
        ({"labels": np.array([0, -1, 1, 0])}, "labels holds -1, expected 0 to 2"),
        ({"validation_labels": np.array([0, 3])}, "validation_labels holds 3, expected 0 to 2"),
        ({"class_names": np.array(["bird", "cat"])}, "labels holds 2, expected 0 to 1"),
        (
            {"validation_images": np.zeros((2, 12, 12, 3), np.uint8)},
            "training and validation images differ in size",
        ),
        (
            {"images": IMAGES[:1], "labels": np.array([0]), "sample_ids": np.array([1])},
            "holds 1 training image, expected at least 2",
        ),
        ({"labels": np.array([None] * 4)}, "cannot read .*Object arrays"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_device_file_that_is_wrong(tmp_path: Path, changes: Any, match: str) -> None:
    path = device_file(tmp_path / "d.npz", **changes)
    with pytest.raises(DatasetError, match=match):
        load_private_data(path)
    with pytest.raises(DatasetError, match=match):
        show(path)


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04"])
def test_what_is_no_device_file(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "d.npz"
    if content is not None:
        path.write_bytes(content)
    for load in (load_private_data, load_test_data):
        with pytest.raises(DatasetError, match="cannot read"):
            load(path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": None}, "has no labels, expected images, labels: give a test set made by gkt data split"),
        ({"labels": np.zeros(4)}, "labels is float64"),
        ({"labels": np.array(["a"] * 4)}, "labels is <U1"),
        ({"labels": np.array(3)}, r"labels is int64 \[\]"),
        ({"labels": np.array([0, 1, -1, 0])}, "labels holds -1"),
        ({"images": IMAGES[:3]}, r"labels is int64 \[4\], expected integers \[3\]"),
        ({"images": IMAGES / 1}, "images is float64, expected uint8"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_test_set_that_is_wrong(tmp_path: Path, changes: Any, match: str) -> None:
    with pytest.raises(DatasetError, match=match):
        load_test_data(device_file(tmp_path / "d.npz", **changes))


def test_a_folder_is_told_how_a_file_is_made_of_it(tmp_path: Path) -> None:
    for read in (load_private_data, load_test_data, is_private_data):
        with pytest.raises(DatasetError, match=r" is a folder: give .* gkt data pack .* --for BUNDLE"):
            read(tmp_path)


def test_errors_of_the_system_are_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "mine.npz").touch()
    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(DatasetError, match=r"^cannot read .*mine\.npz: Permission denied$"):
        load_private_data(tmp_path / "mine.npz")
