"""Arrays of an .npz as people have them: what is converted, and the line of numpy for the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gkt_core.data.datasets import Dataset, load_dataset
from gkt_core.errors import DatasetError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 12, 12, 3)).astype(np.uint8)
IMAGES[0, 0, 0], IMAGES[0, 0, 1] = 0, 255
LABELS = np.arange(20) % 4
GREY = np.repeat(IMAGES[..., :1], 3, axis=3)


def load(path: Path, x: NDArray[Any], y: NDArray[Any], **options: Any) -> Dataset:
    np.savez(path / "d.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])
    return load_dataset(str(path / "d.npz"), **options)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (IMAGES[..., 0], GREY),
        (IMAGES[..., :1], GREY),
        (IMAGES.transpose(0, 3, 1, 2), IMAGES),
        (IMAGES[..., :1].transpose(0, 3, 1, 2), GREY),
        ((IMAGES / 255).astype(np.float32), IMAGES),
        ((IMAGES / 255).astype(np.float16), IMAGES),
        ((IMAGES / 255).transpose(0, 3, 1, 2), IMAGES),
        (IMAGES.astype(np.int64), IMAGES),
        (IMAGES.astype(np.float64), IMAGES),
        (IMAGES.astype(np.uint16), IMAGES),
        (IMAGES[..., 0] > 99, np.where(GREY > 99, 255, 0)),
        (np.concatenate([IMAGES, np.full_like(IMAGES[..., :1], 255)], axis=3), IMAGES),
        (np.concatenate([IMAGES, np.zeros_like(IMAGES[..., :1])], axis=3), np.full_like(IMAGES, 255)),
    ],
    ids=lambda value: f"{value.dtype}{list(value.shape)}",
)
def test_images_whose_meaning_is_certain_are_converted(
    tmp_path: Path, x: NDArray[Any], expected: NDArray[Any]
) -> None:
    dataset = load(tmp_path, x, LABELS)
    assert dataset.x_train.dtype == np.uint8
    assert np.array_equal(dataset.x_train, expected)
    assert np.array_equal(dataset.x_test, expected[:8])
    assert len(dataset.reading.converted) >= 2


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (LABELS[:, None], "0123"),
        (LABELS.astype(np.float32), "0123"),
        (np.eye(4, dtype=np.uint8)[LABELS], "0123"),
        (np.eye(6)[LABELS], "012345"),
        (np.array(["a", "b", "c", "d"])[LABELS], "abcd"),
        (np.array([b"a", b"b", b"c", b"d"])[LABELS], "abcd"),
        (LABELS.astype(np.uint8), "0123"),
    ],
    ids=lambda value: f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else value,
)
def test_labels_whose_meaning_is_certain_are_converted(tmp_path: Path, y: NDArray[Any], names: str) -> None:
    dataset = load(tmp_path, IMAGES, y)
    assert np.array_equal(dataset.y_train, LABELS)
    assert np.array_equal(dataset.y_test, LABELS[:8])
    assert dataset.class_names == tuple(names)


def test_true_and_false_are_classes(tmp_path: Path) -> None:
    dataset = load(tmp_path, IMAGES, LABELS > 1)
    assert dataset.class_names == ("False", "True")
    assert np.array_equal(dataset.y_train, LABELS > 1)


def test_names_have_one_number_in_both_parts(tmp_path: Path) -> None:
    """The test part lacks the first class; numbered by itself, every one of its labels would be wrong."""
    names = np.array(["ant", "bee", "cat", "dog"])
    np.savez(
        tmp_path / "d.npz", x_train=IMAGES, y_train=names[LABELS], x_test=IMAGES[:3], y_test=names[[3, 1, 2]]
    )
    assert load_dataset(str(tmp_path / "d.npz")).y_test.tolist() == [3, 1, 2]
    np.savez(
        tmp_path / "d.npz", x_train=IMAGES, y_train=names[LABELS], x_test=IMAGES[:1], y_test=np.array(["emu"])
    )
    with pytest.raises(DatasetError, match="y_test holds the class 'emu', expected one of ant, bee"):
        load_dataset(str(tmp_path / "d.npz"))


def test_names_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    dataset = load(tmp_path, IMAGES, np.array(["9", "10", "2", "100"])[LABELS])
    assert dataset.class_names == ("2", "9", "10", "100")


NORMALISED = ((IMAGES / 255) - 0.5) / 0.25
# A pixel of each.
ALL_NAN = np.where(np.arange(12)[:, None] == 3, np.nan, IMAGES / 255)
WITH_NAN = np.where(np.arange(20)[:, None, None, None] == 3, np.nan, IMAGES / 255)


@pytest.mark.parametrize(
    ("x", "line"),
    [
        (NORMALISED, 'x_train = ((x_train * std + mean) * 255).round().clip(0, 255).astype("uint8")'),
        (IMAGES / 127.5 - 1, 'x_train = ((x_train + 1) * 127.5).round().astype("uint8")'),
        (IMAGES.astype(np.uint16) * 257, 'x_train = (x_train / 257).round().astype("uint8")'),
        ((IMAGES > 99).astype(np.int64), 'x_train = (x_train * 255).astype("uint8")'),
        (IMAGES * 0.99, 'x_train = x_train.round().astype("uint8")'),
        (IMAGES.transpose(1, 2, 3, 0), "x_train = x_train.transpose(3, 0, 1, 2)"),
        (IMAGES.reshape(20, -1), "x_train = x_train.reshape(-1, 3, 12, 12)"),
        (IMAGES[..., 0].reshape(20, -1), "x_train = x_train.reshape(-1, 12, 12)"),
        (IMAGES[..., :2], "x_train = x_train[..., :1]"),
        (
            WITH_NAN,
            "good = np.isfinite(x_train).reshape(len(x_train), -1).all(axis=1); "
            "x_train, y_train = x_train[good], y_train[good]",
        ),
        (ALL_NAN, "x_train = np.nan_to_num(x_train, nan=0, posinf=0, neginf=0)"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_other_images_are_refused_with_a_line_that_mends_them(
    tmp_path: Path, x: NDArray[Any], line: str
) -> None:
    """The line does what it says: with it, the same images load."""
    with pytest.raises(DatasetError, match=re.escape(line)):
        load(tmp_path, x, LABELS)
    here: dict[str, Any] = {"x_train": x, "y_train": LABELS, "np": np, "mean": 0.5, "std": 0.25}
    exec(line, here)
    dataset = load(tmp_path, here["x_train"], here["y_train"])
    assert len(dataset.x_train) == (19 if x is WITH_NAN else 20)
    if x is NORMALISED:
        assert np.array_equal(dataset.x_train, IMAGES)


@pytest.mark.parametrize(
    ("y", "match", "line"),
    [
        (LABELS + 1, "the labels 1 to 4 and no 0", "y_train, y_test = y_train - 1, y_test - 1"),
        (LABELS - 1, "holds the label -1", "y_train, y_test = y_train + 1, y_test + 1"),
        (
            np.where(LABELS == 3, 99, LABELS),
            "4 labels from 0 to 99, and none of 3, 4, 5, 6, 7 and so on",
            "values = np.unique(y_train); y_train = np.searchsorted(values, y_train); "
            "y_test = np.searchsorted(values, y_test)",
        ),
        (np.where(LABELS % 2, 1, -1), "holds the label -1", None),
        (np.eye(4)[LABELS] * 0.8 + 0.05, "float64", None),
    ],
    ids=["from 1", "from -1", "gaps", "plus and minus", "soft"],
)
def test_labels_that_may_mean_something_else_are_asked_about(
    tmp_path: Path, y: NDArray[Any], match: str, line: str | None
) -> None:
    with pytest.raises(DatasetError, match=match) as caught:
        load(tmp_path, IMAGES, y)
    message = str(caught.value)
    if line is None:
        line = message[message.index("y_train =" if "argmax" in message else "y_train, y_test =") :]
        line = line.split("   #")[0]
    assert line in message
    here: dict[str, Any] = {"y_train": y, "y_test": y[:8], "np": np}
    exec(line, here)
    dataset = load(tmp_path, IMAGES, here["y_train"])
    expected = LABELS % 2 if dataset.num_classes == 2 else LABELS
    assert np.array_equal(dataset.y_train, expected)


def test_an_empty_class_is_taken_when_it_is_asked_for_or_named(tmp_path: Path) -> None:
    assert load(tmp_path, IMAGES, LABELS + 1, allow_empty_classes=True).num_classes == 5
    assert load(tmp_path, IMAGES, LABELS + 1, num_classes=7).num_classes == 7
    np.savez(
        tmp_path / "n.npz", images=IMAGES, labels=LABELS + 1, class_names=np.array(["z", "a", "b", "c", "d"])
    )
    assert load_dataset(str(tmp_path / "n.npz")).class_names == ("z", "a", "b", "c", "d")


@pytest.mark.parametrize(
    ("image_key", "label_key"),
    [
        ("images", "labels"),
        ("data", "targets"),
        ("X", "y"),
        ("x", "y"),
        ("image", "label"),
        ("imgs", "labels"),
    ],
)
def test_one_part_under_other_names_keeps_a_fifth_for_testing(
    tmp_path: Path, image_key: str, label_key: str
) -> None:
    np.savez(tmp_path / "d.npz", **{image_key: IMAGES, label_key: LABELS})
    dataset = load_dataset(str(tmp_path / "d.npz"))
    assert (len(dataset.x_train), len(dataset.x_test)) == (16, 4)
    images = np.concatenate([dataset.x_train, dataset.x_test])
    labels = np.concatenate([dataset.y_train, dataset.y_test])
    rows = [next(r for r in range(20) if np.array_equal(IMAGES[r], image)) for image in images]
    assert sorted(rows) == list(range(20))
    assert np.array_equal(labels, LABELS[rows])


@pytest.mark.parametrize(
    "keys",
    [
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("xtrain", "ytrain", "xtest", "ytest"),
        ("training_data", "training_targets", "testing_data", "testing_targets"),
        ("train_images", "train_labels", "val_images", "val_labels"),
    ],
    ids=lambda keys: keys[0],
)
def test_two_parts_under_other_names(tmp_path: Path, keys: tuple[str, ...]) -> None:
    np.savez(tmp_path / "d.npz", **dict(zip(keys, (IMAGES, LABELS, IMAGES[:8], LABELS[:8]), strict=True)))
    dataset = load_dataset(str(tmp_path / "d.npz"))
    assert np.array_equal(dataset.x_train, IMAGES)
    assert np.array_equal(dataset.y_test, LABELS[:8])


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"pixels": IMAGES, "classes": LABELS}, "it holds classes, pixels: arrays = np.load"),
        (
            {"images": IMAGES, "data": IMAGES, "labels": LABELS},
            "data and images, both could be the images",
        ),
        (
            {"images": IMAGES, "fine_labels": LABELS, "coarse_labels": LABELS},
            "coarse_labels, fine_labels",
        ),
    ],
    ids=["unknown", "two of a kind", "two kinds of labels"],
)
def test_names_that_do_not_say_which_is_which_are_refused(
    tmp_path: Path, arrays: dict[str, NDArray[Any]], match: str
) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DatasetError, match=match):
        load_dataset(str(tmp_path / "d.npz"))


def test_oblong_images_ask_for_a_size(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"x_train is \[20, 8, 12, 3\].*--image-size 8 --fit crop"):
        load(tmp_path, IMAGES[:, :8], LABELS)
    assert load(tmp_path, IMAGES[:, :8], LABELS, image_size=8, fit="pad").x_train[:, 0].max() == 0


def test_a_text_file_is_not_advised_to_be_unpickled(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_text("label,image\n")
    with pytest.raises(DatasetError, match=r"d\.npz: it is no \.npz file, which np\.savez writes$"):
        load_dataset(str(tmp_path / "d.npz"))
