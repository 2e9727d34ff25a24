"""Datasets by name or path: what is read, and one named error for everything that cannot be."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import pickle
import socket
import tarfile
import urllib.error
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gkt_core.data.datasets import Dataset, load_dataset, make_dataset
from gkt_core.errors import ConfigError, DatasetError, MissingExtraError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test of this file may reach for the network, not even by mistake."""

    def refuse(*_arguments: Any) -> None:
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def refused(source: Any, match: str, **options: Any) -> None:
    with pytest.raises(DatasetError, match=match):
        load_dataset(str(source), **options)


def check_dataset(dataset: Dataset, num_train: int, num_test: int, size: int) -> None:
    assert dataset.x_train.shape == (num_train, size, size, 3)
    assert dataset.x_test.shape == (num_test, size, size, 3)
    assert dataset.x_train.dtype == dataset.x_test.dtype == np.uint8
    assert dataset.y_train.shape == (num_train,)
    assert dataset.y_test.shape == (num_test,)
    assert dataset.y_train.dtype == dataset.y_test.dtype == dataset.sample_ids.dtype == np.int64
    assert dataset.image_size == size
    assert len(np.unique(dataset.sample_ids)) == num_train


# --- digits


def test_digits() -> None:
    dataset = load_dataset("digits")
    check_dataset(dataset, 1437, 360, 16)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.num_classes == 10
    assert not dataset.horizontal_flip
    assert np.array_equal(dataset.sample_ids, np.arange(1437))
    assert (np.bincount(dataset.y_test, minlength=10) > 20).all()
    # Gray pictures that use the whole range.
    assert dataset.x_train.max() == 255
    assert dataset.x_train.min() == 0
    assert np.array_equal(dataset.x_train[..., 0], dataset.x_train[..., 2])


def test_no_digit_is_in_both_parts() -> None:
    dataset = load_dataset("digits", image_size=8)
    train = {image.tobytes() for image in dataset.x_train}
    assert not [image for image in dataset.x_test if image.tobytes() in train]
    assert len(train) == 1437


def test_the_test_part_of_digits_is_the_same_for_every_seed() -> None:
    one, other = (load_dataset("digits", seed=seed, limit=50) for seed in (0, 9))
    assert np.array_equal(one.x_test, other.x_test)
    assert np.array_equal(one.y_test, other.y_test)
    assert one.sample_ids.tolist() != other.sample_ids.tolist()


def test_digits_of_another_size_are_the_same_digits() -> None:
    small, large = load_dataset("digits", image_size=8), load_dataset("digits", image_size=32)
    assert large.image_size == 32
    assert np.array_equal(small.y_train, large.y_train)
    assert np.array_equal(small.y_test, large.y_test)


def test_pixel_statistics_are_those_of_numpy() -> None:
    dataset = load_dataset("digits", limit=100)
    mean, std = dataset.pixel_statistics()
    scaled = dataset.x_train.reshape(-1, 3).astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(std, scaled.std(axis=0), atol=1e-6)


def test_pixel_statistics_of_one_colour_do_not_divide_by_zero_later() -> None:
    gray = np.full((4, 8, 8, 3), 7, np.uint8)
    labels = np.array([0, 1, 0, 1])
    mean, std = make_dataset(
        "gray", (gray, labels), (gray, labels), None, horizontal_flip=True
    ).pixel_statistics()
    assert mean == [pytest.approx(7 / 255, abs=1e-6)] * 3
    assert std == [0.001] * 3


def test_a_missing_extra_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match="scikit-learn is not installed: pip install 'gkt-edge"):
        load_dataset("digits")


# --- limit, image size, unknown names


def test_limit_keeps_ids_images_and_labels_together() -> None:
    whole, part = load_dataset("digits"), load_dataset("digits", limit=40, seed=3)
    check_dataset(part, 40, 360, 16)
    assert (np.diff(part.sample_ids) > 0).all()
    assert np.array_equal(part.x_train, whole.x_train[part.sample_ids])
    assert np.array_equal(part.y_train, whole.y_train[part.sample_ids])
    assert np.array_equal(part.sample_ids, load_dataset("digits", limit=40, seed=3).sample_ids)
    assert load_dataset("digits", limit=10_000).x_train.shape == whole.x_train.shape


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"limit": 0}, "limit is 0, expected at least 1"),
        ({"limit": -5}, "limit is -5"),
        ({"image_size": 30}, "image size is 30, expected a multiple of 4 from 8 to 256"),
        ({"image_size": 4}, "image size is 4"),
        ({"image_size": 0}, "image size is 0"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
    ],
    ids=str,
)
def test_options_out_of_range_are_named(options: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load_dataset("digits", **options)


@pytest.mark.parametrize(
    "source", ["imagenet", "", "Digits", "no/such/folder", "data.npy", "x" * 5000, "a\0b"]
)
def test_an_unknown_dataset_is_told_what_there_is(source: Any) -> None:
    refused(source, "expected digits, cifar10, cifar100, a path to an .npz file, or a folder|cannot read")


# --- .npz


def npz_arrays(size: int = 8, num_train: int = 6, num_test: int = 4) -> Any:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (num_train, size, size, 3)).astype(np.uint8),
        "y_train": np.arange(num_train) % 3,
        "x_test": rng.integers(0, 256, (num_test, size, size, 3)).astype(np.uint8),
        "y_test": np.arange(num_test) % 3,
    }


def write_npz(path: Path, **changes: Any) -> Any:
    arrays = {name: array for name, array in {**npz_arrays(), **changes}.items() if array is not None}
    np.savez(path, **arrays)
    return path


def test_an_npz_file_and_whatever_else_it_holds(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", exact_train=np.ones(6, bool), note=np.array("made by hand"))
    dataset = load_dataset(str(path))
    check_dataset(dataset, 6, 4, 8)
    arrays = npz_arrays()
    assert np.array_equal(dataset.x_train, arrays["x_train"])
    assert np.array_equal(dataset.y_test, arrays["y_test"])
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.horizontal_flip


def test_an_npz_file_may_be_compressed_and_its_labels_of_any_integer(tmp_path: Path) -> None:
    arrays = npz_arrays()
    np.savez_compressed(tmp_path / "d.npz", **{**arrays, "y_train": arrays["y_train"].astype(np.uint8)})
    check_dataset(load_dataset(str(tmp_path / "d.npz")), 6, 4, 8)


def test_an_npz_file_is_scaled_on_demand(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz")
    check_dataset(load_dataset(str(path), image_size=16, limit=3), 3, 4, 16)
    check_dataset(load_dataset(str(path), image_size=8), 6, 4, 8)


def test_an_npz_file_of_an_odd_size_asks_for_an_image_size(tmp_path: Path) -> None:
    odd = npz_arrays(size=30)
    path = write_npz(tmp_path / "d.npz", x_train=odd["x_train"], x_test=odd["x_test"])
    refused(path, "images 30 px high and 30 px wide; expected .* a multiple of 4 .* --image-size 28 ")
    check_dataset(load_dataset(str(path), image_size=32), 6, 4, 32)


def test_classes_that_the_training_part_lacks_can_be_declared(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", y_test=np.array([0, 1, 2, 5]))
    refused(path, "y_test holds the label 5, expected 0 to 2: the training part shows 3 classes")
    assert load_dataset(str(path), num_classes=7).num_classes == 7


X, Y = npz_arrays()["x_train"], npz_arrays()["y_train"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"x_train": None}, "has no x_train, expected x_train, y_train, x_test, y_test"),
        ({"y_train": None, "y_test": None}, "has no y_train, y_test"),
        ({"x_train": X[..., :2]}, r"x_train is \[6, 8, 8, 2\]"),
        ({"x_train": X[:, :4]}, r"x_train is \[6, 4, 8, 3\]"),
        ({"x_train": X.reshape(6, -1)}, r"x_train is \[6, 192\]"),
        ({"y_train": Y[:5]}, r"y_train is int64 \[5\], expected integers \[6\]"),
        ({"y_train": np.array(["cat"] * 6)}, "there is 1 class, expected at least 2"),
        ({"y_train": np.array(3)}, r"y_train is int64 \[\]"),
        ({"y_train": np.array([0, 1, 2, 0, 1, -1])}, "y_train holds the label -1"),
        ({"y_train": np.array([0, 1, 2, 0, 1, 2**62])}, f"y_train holds the label {2**62}, expected below"),
        ({"y_train": np.array([0, 1, 2, 0, 1, 2**64 - 1], np.uint64)}, "y_train holds the label"),
        ({"y_test": np.array([0, 1, 2, 3])}, "y_test holds the label 3, expected 0 to 2"),
        ({"y_train": np.zeros(6, int), "y_test": np.zeros(4, int)}, "there is 1 class, expected at least 2"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "the train part holds no images"),
        ({"x_test": X[:0], "y_test": Y[:0]}, "the test part holds no images"),
        ({"x_test": npz_arrays(size=12)["x_test"]}, "training images are .*, test images"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_an_npz_file_with_wrong_arrays(tmp_path: Path, changes: Any, match: str) -> None:
    refused(write_npz(tmp_path / "d.npz", **changes), match)


class Alarm:
    """Unpickling this would run code."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickled object was loaded",)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **{**npz_arrays(), "y_train": np.array([Alarm()] * 6, object)})
    refused(tmp_path / "d.npz", "cannot read .*Object arrays cannot be loaded")
    (tmp_path / "p.npz").write_bytes(pickle.dumps(Alarm()))
    refused(tmp_path / "p.npz", "cannot read")


def spoilt_npz(kind: str, path: Path) -> None:
    whole = write_npz(path).read_bytes()
    if kind == "not there":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "npy":
        stream = io.BytesIO()
        np.save(stream, X)
        path.write_bytes(stream.getvalue())
    elif kind == "member that is no array":
        with zipfile.ZipFile(path, "w") as archive:
            for name in npz_arrays():
                archive.writestr(f"{name}.npy", b"no array")
    elif kind == "compressed and changed":
        np.savez_compressed(path, **npz_arrays())
        changed = bytearray(path.read_bytes())
        # The first compressed bytes stand behind a header of 30 bytes, the name and its extra field.
        begin = 30 + int.from_bytes(changed[26:28], "little") + int.from_bytes(changed[28:30], "little")
        changed[begin : begin + 8] = b"\xff" * 8
        path.write_bytes(changed)
    else:
        contents = {
            "empty": b"",
            "text": b"images",
            "cut short": whole[: len(whole) // 2],
            "changed": whole[:300] + bytes(40) + whole[340:],
            "unknown compression": whole.replace(b"PK\x01\x02-\x03-\0\0\0\0\0", b"PK\x01\x02-\x03-\0\0\0c\0"),
        }
        path.write_bytes(contents[kind])
        assert contents[kind] != whole


@pytest.mark.parametrize(
    "kind",
    [
        "not there",
        "folder",
        "empty",
        "text",
        "npy",
        "cut short",
        "changed",
        "member that is no array",
        "compressed and changed",
        "unknown compression",
    ],
)
def test_what_is_no_npz_file(tmp_path: Path, kind: str) -> None:
    spoilt_npz(kind, tmp_path / "d.npz")
    refused(tmp_path / "d.npz", f"cannot read {tmp_path}|x_train is \\[\\]")


# --- image folders

COLOURS = {"bird": (250, 10, 10), "cat": (10, 250, 10), "dog": (10, 10, 250)}


def draw(path: Path, colour: Any, size: tuple[int, int] = (32, 32), mode: Any = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", size, colour)
    (picture.quantize() if mode == "P" else picture.convert(mode)).save(path)


def draw_folder(root: Any, num: int = 2, classes: Any = COLOURS) -> Any:
    for name in classes:
        for number in range(num):
            draw(root / name / f"{number}.png", COLOURS[name])
    return root


def check_colours(dataset: Dataset, images: Any, labels: Any) -> None:
    """Each image still belongs to its own label."""
    for image, label in zip(images, labels, strict=True):
        expected = np.array(COLOURS[dataset.class_names[label]])
        assert np.abs(image.reshape(-1, 3).astype(int) - expected).max() <= 5


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    draw_folder(tmp_path / "train", 3)
    draw_folder(tmp_path / "test", 1)
    dataset = load_dataset(str(tmp_path))
    check_dataset(dataset, 9, 3, 32)
    assert dataset.class_names == ("bird", "cat", "dog")
    assert dataset.y_train.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.y_test.tolist() == [0, 1, 2]
    assert dataset.horizontal_flip
    check_colours(dataset, dataset.x_train, dataset.y_train)
    check_colours(dataset, dataset.x_test, dataset.y_test)


def test_cinic_10_with_its_train_valid_and_test(tmp_path: Path) -> None:
    draw_folder(tmp_path / "train", 2)
    draw_folder(tmp_path / "valid", 5)
    draw_folder(tmp_path / "test", 1)
    (tmp_path / "README.md").write_text("CINIC-10")
    check_dataset(load_dataset(str(tmp_path)), 6, 3, 32)


def test_a_flat_folder_is_split_by_the_seed(tmp_path: Path) -> None:
    draw_folder(tmp_path, 10)
    dataset = load_dataset(str(tmp_path), seed=1)
    check_dataset(dataset, 24, 6, 32)
    check_colours(dataset, dataset.x_train, dataset.y_train)
    check_colours(dataset, dataset.x_test, dataset.y_test)
    assert np.array_equal(load_dataset(str(tmp_path), seed=1).y_test, dataset.y_test)
    assert any(not np.array_equal(load_dataset(str(tmp_path), seed=s).y_test, dataset.y_test) for s in (2, 3))


def test_images_of_all_kinds_and_sizes_become_one(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "bird" / "a.png", COLOURS["bird"], (64, 48))
    draw(tmp_path / "train" / "bird" / "deeper" / "b.JPG", COLOURS["bird"])
    draw(tmp_path / "train" / "bird" / "c.gif", COLOURS["bird"], (5, 5), "P")
    draw(tmp_path / "train" / "bird" / "d.png", COLOURS["bird"], mode="RGBA")
    draw(tmp_path / "train" / "cat" / "e.bmp", COLOURS["cat"])
    draw(tmp_path / "train" / "cat" / "f.png", (200, 200, 200), mode="L")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    draw_folder(tmp_path / "test", 1, ["bird"])
    dataset = load_dataset(str(tmp_path), image_size=16)
    check_dataset(dataset, 6, 1, 16)
    assert dataset.y_train.tolist() == [0, 0, 0, 0, 1, 1]
    check_colours(dataset, dataset.x_train[:5], dataset.y_train[:5])
    assert (dataset.x_train[5] == 200).all()


def test_folders_are_read_in_the_same_order_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_folder(tmp_path / "train", 3)
    draw_folder(tmp_path / "test", 1)
    first = load_dataset(str(tmp_path))
    iterdir, glob = Path.iterdir, Path.glob
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(iterdir(path), reverse=True)))
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter(sorted(glob(path, pattern), reverse=True)))
    second = load_dataset(str(tmp_path))
    assert second.class_names == first.class_names
    assert np.array_equal(second.x_train, first.x_train)


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0"],
    ids=["empty", "text", "PNG signature", "GIF signature", "JPEG signature"],
)
def test_a_corrupt_image_is_left_out_and_named_or_refused(tmp_path: Path, content: Any) -> None:
    draw_folder(tmp_path / "train")
    draw_folder(tmp_path / "test")
    broken = tmp_path / "train" / "cat" / "broken.png"
    broken.write_bytes(content)
    dataset = load_dataset(str(tmp_path))
    check_dataset(dataset, 6, 6, 32)
    assert list(dataset.reading.left_out.values()) == [["train/cat/broken.png"]]
    refused(tmp_path, r"train/cat/broken\.png\): mend or remove them", strict=True)


def test_an_image_that_is_cut_short_is_left_out_wherever_the_cut_is(tmp_path: Path) -> None:
    draw_folder(tmp_path)
    whole = (tmp_path / "cat" / "0.png").read_bytes()
    # The last bytes only hold checksums and say that the image ends.
    for length in range(0, len(whole) - 24, 3):
        (tmp_path / "cat" / "0.png").write_bytes(whole[:length])
        assert load_dataset(str(tmp_path)).reading.num_left_out == 1


def test_an_image_too_large_to_open_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_folder(tmp_path)
    draw(tmp_path / "cat" / "large.png", COLOURS["cat"], (64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1024)
    assert load_dataset(str(tmp_path)).reading.left_out == {"more than 2,048 pixels": ["cat/large.png"]}


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    draw_folder(tmp_path / "train")
    draw_folder(tmp_path / "test")
    (tmp_path / "train" / "emu").mkdir()
    refused(tmp_path, "class folder emu holds no images: fill or remove it")
    (tmp_path / "flat").mkdir()
    draw_folder(tmp_path / "flat")
    (tmp_path / "flat" / "docs").mkdir()
    refused(tmp_path / "flat", "class folder docs holds no images")


def test_a_class_that_the_test_part_lacks_is_allowed(tmp_path: Path) -> None:
    draw_folder(tmp_path / "train")
    draw_folder(tmp_path / "test", 1, ["dog", "bird"])
    (tmp_path / "test" / "cat").mkdir()
    assert load_dataset(str(tmp_path)).y_test.tolist() == [0, 2]


def test_folders_without_any_image(tmp_path: Path) -> None:
    refused(tmp_path, "holds no images: expected one folder a class")
    draw(tmp_path / "0.png", COLOURS["cat"])
    refused(tmp_path, r"holds no images that can be read \(1: in no class folder\): expected one folder")
    draw_folder(tmp_path / "two" / "train")
    (tmp_path / "two" / "test").mkdir()
    refused(tmp_path / "two", f"{tmp_path / 'two' / 'test'} holds no images")


def test_a_class_that_only_the_test_part_has(tmp_path: Path) -> None:
    draw_folder(tmp_path / "train", 1, ["bird", "cat"])
    draw_folder(tmp_path / "test", 1)
    refused(tmp_path, "test has the class dog, which the training part lacks")


@pytest.mark.parametrize("part", ["train", "test"])
def test_one_part_only(tmp_path: Path, part: Any) -> None:
    draw_folder(tmp_path / part)
    refused(tmp_path, f"has a {part} folder only, expected train and test, or class folders")


def test_a_single_class(tmp_path: Path) -> None:
    draw_folder(tmp_path, 10, ["cat"])
    refused(tmp_path, "there is 1 class, expected at least 2")


def test_a_single_image(tmp_path: Path) -> None:
    draw_folder(tmp_path, 1, ["cat"])
    refused(tmp_path, "the train part holds no images")


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    draw_folder(tmp_path)
    monkeypatch.setattr(Path, "iterdir", forbidden)
    refused(tmp_path, r"the folder .* may not be read by this user: chmod -R u\+rX ")


# --- CIFAR through torchvision


def cifar_files(name: str, num: int = 8) -> Any:
    """A small dataset in the official archive's format: ``{file: pickled bytes}``."""
    rng = np.random.default_rng(0)

    def batch(labels: Any) -> Any:
        return {"data": rng.integers(0, 256, (len(labels), 3072)).astype(np.uint8), **labels_key(labels)}

    def labels_key(labels: Any) -> Any:
        return {"labels": labels} if name == "cifar10" else {"fine_labels": labels, "coarse_labels": labels}

    if name == "cifar10":
        classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
        parts = {f"data_batch_{n}": batch([(n + i) % 10 for i in range(num)]) for n in range(1, 6)}
        parts |= {"test_batch": batch([9, 0, 4]), "batches.meta": {"label_names": classes}}
    else:
        classes = [f"class{n:02d}" for n in range(100)]
        parts = {"train": batch([99, 0, 50, 7]), "test": batch([1, 98])}
        parts |= {"meta": {"fine_label_names": classes, "coarse_label_names": ["a", "b"]}}
    return {file: pickle.dumps(content, protocol=2) for file, content in parts.items()}


@pytest.fixture
def cifar_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a small archive where torchvision keeps its download, its MD5 sums in place of the published."""

    def write(name: str) -> Any:
        cifar = pytest.importorskip("torchvision.datasets.cifar")
        kind = {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}[name]
        files = cifar_files(name)
        archive = tmp_path / kind.filename
        with tarfile.open(archive, "w:gz") as tar:
            for file, data in files.items():
                entry = tarfile.TarInfo(f"{kind.base_folder}/{file}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        sums = {file: hashlib.md5(data).hexdigest() for file, data in files.items()}
        monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
        monkeypatch.setattr(kind, "train_list", [[file, sums[file]] for file, _ in kind.train_list])
        monkeypatch.setattr(kind, "test_list", [[file, sums[file]] for file, _ in kind.test_list])
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums[kind.meta["filename"]]})
        return {file: pickle.loads(data) for file, data in files.items()}  # noqa: S301 - made above

    return write


def as_image(row: Any) -> Any:
    """One row of an archive: 1024 red values, then green, then blue, each row by row."""
    return np.stack([row[:1024], row[1024:2048], row[2048:]], axis=-1).reshape(32, 32, 3)


# From Python 3.12 to 3.13 tarfile warns about torchvision's call.
@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
def test_cifar10_from_the_official_archive(tmp_path: Path, cifar_archive: Any, capsys: Any) -> None:
    files = cifar_archive("cifar10")
    dataset = load_dataset("cifar10", data_root=tmp_path)
    check_dataset(dataset, 40, 3, 32)
    assert dataset.class_names[:2] == ("airplane", "automobile")
    assert dataset.num_classes == 10
    assert dataset.horizontal_flip
    assert dataset.y_train[:8].tolist() == files["data_batch_1"]["labels"]
    assert dataset.y_test.tolist() == [9, 0, 4]
    assert np.array_equal(dataset.x_train[8], as_image(files["data_batch_2"]["data"][0]))
    assert np.array_equal(dataset.x_test[2], as_image(files["test_batch"]["data"][2]))
    # Standard output belongs to --json.
    assert capsys.readouterr().out == ""
    again = load_dataset("cifar10", data_root=tmp_path, limit=5, image_size=16)
    check_dataset(again, 5, 3, 16)


@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
def test_cifar100_from_the_official_archive(tmp_path: Path, cifar_archive: Any) -> None:
    files = cifar_archive("cifar100")
    dataset = load_dataset("cifar100", data_root=tmp_path)
    check_dataset(dataset, 4, 2, 32)
    assert dataset.num_classes == 100
    assert dataset.class_names[99] == "class99"
    assert dataset.y_train.tolist() == [99, 0, 50, 7]
    assert np.array_equal(dataset.x_train[1], as_image(files["train"]["data"][1]))


@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
def test_a_changed_cifar_file_is_not_unpickled(
    tmp_path: Path, cifar_archive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar_archive("cifar10")
    load_dataset("cifar10", data_root=tmp_path)
    cifar = pytest.importorskip("torchvision.datasets.cifar")
    (tmp_path / cifar.CIFAR10.base_folder / "data_batch_3").write_bytes(pickle.dumps(Alarm()))
    (tmp_path / cifar.CIFAR10.filename).unlink()
    monkeypatch.setattr(cifar, "download_and_extract_archive", lambda *_a, **_k: None)
    refused("cifar10", "not found or corrupted", data_root=tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("Name or service not known"),
        TimeoutError("timed out"),
        RuntimeError("File not found or corrupted."),
        http.client.IncompleteRead(b""),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_download_that_fails_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, failure: Any
) -> None:
    cifar = pytest.importorskip("torchvision.datasets.cifar")
    asked = []

    def download(url: Any, *_arguments: Any, **_options: Any) -> None:
        asked.append(url)
        raise failure

    monkeypatch.setattr(cifar, "download_and_extract_archive", download)
    refused(
        name, f"cannot load {name}: .*copy the folder to {tmp_path}, or give an .npz file", data_root=tmp_path
    )
    assert len(asked) == 1


def test_real_cifar10_images() -> None:
    folder = os.environ.get("GKT_TEST_DATA")
    path = Path(folder or ".") / "cifar10.npz"
    if not folder or not path.is_file():
        pytest.skip("no real CIFAR-10 images: set GKT_TEST_DATA to a folder that holds cifar10.npz")
    dataset = load_dataset(str(path), limit=100)
    check_dataset(dataset, 100, 10_000, 32)
    assert dataset.num_classes == 10
    assert np.bincount(dataset.y_test).tolist() == [1000] * 10
    mean, std = dataset.pixel_statistics()
    # The whole training part has 0.491, 0.482, 0.447 and 0.247, 0.243, 0.262.
    np.testing.assert_allclose(mean, [0.491, 0.482, 0.447], atol=0.06)
    np.testing.assert_allclose(std, [0.247, 0.243, 0.262], atol=0.06)
