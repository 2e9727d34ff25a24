"""A device makes its own file: classes and order of the bundle, ids that follow the image, nothing silent."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gkt_core.bundle.manifest import Bundle
from gkt_core.data.pack import PackOptions, pack, sample_ids, target_of
from gkt_core.data.pack_sources import listing
from gkt_core.data.pack_target import PackTarget
from gkt_core.data.private_data import (
    PrivateData,
    load_private_data,
    owner_key_of,
    save_private_data,
)
from gkt_core.data.reading.report import ReadingReport
from gkt_core.errors import ArtifactError, ConfigError, DatasetError, GKTError

CLASSES = ("owl", "cat", "dog")
KEY, OTHER_KEY = b"a" * 32, b"b" * 32
GREYS = {"cat": 60, "dog": 120, "owl": 180, "emu": 240}
GOLDEN = Path(__file__).with_name("golden_device_file.npz")


def photos(root: Path, names: tuple[str, ...] = ("cat", "dog"), num: int = 10) -> Path:
    """Each class has a grey of its own, each photo one pixel's row of its own."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(num):
            pixels = np.full((8, 8, 3), GREYS.get(name, 200), np.uint8)
            pixels[0] = number
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def packed(source: Any, key: bytes = KEY, **options: Any) -> tuple[PrivateData, ReadingReport]:
    chosen = PackOptions(**options)
    target = PackTarget(CLASSES, 8, chosen.fit, chosen.mapping(), chosen.allow_empty_classes)
    return pack(str(source), target, chosen, key)


def every(private: PrivateData) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    parts = (private.train, private.validation)
    return (
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.sample_ids for part in parts]),
    )


def names_in(root: Path, folder: str) -> list[str]:
    return sorted(f"{folder}/{file.name}" for file in (root / folder).iterdir())


def by_id(private: PrivateData) -> dict[int, bytes]:
    images, _, ids = every(private)
    return {number: image.tobytes() for number, image in zip(ids.tolist(), images, strict=True)}


def test_classes_are_the_bundles_in_its_order_and_one_may_be_missing(tmp_path: Path) -> None:
    private, report = packed(photos(tmp_path))
    images, labels, _ = every(private)
    assert private.class_names == CLASSES
    assert np.bincount(labels, minlength=3).tolist() == [0, 10, 10]
    assert (images[labels == 1][:, 1:] == GREYS["cat"]).all()
    assert (len(private.train), len(private.validation), report.taken) == (18, 2, 20)
    assert not report.left_out


def test_a_folder_that_is_no_class_is_left_out_and_named_or_mapped(tmp_path: Path) -> None:
    photos(tmp_path, ("cat", "dogs", "emu"))
    private, report = packed(tmp_path)
    left_out = {reason: sorted(names) for reason, names in report.left_out.items()}
    assert left_out == {
        "no class of the bundle: dogs/ (--map dogs=dog if it is one)": names_in(tmp_path, "dogs"),
        "no class of the bundle: emu/": names_in(tmp_path, "emu"),
    }
    assert report.num_left_out == 20
    assert set(every(private)[1].tolist()) == {1}
    private, report = packed(tmp_path, maps=("dogs=dog",))
    assert np.bincount(every(private)[1]).tolist() == [0, 10, 10]
    with pytest.raises(DatasetError, match=r"10 images cannot be taken .*emu/"):
        packed(tmp_path, maps=("dogs=dog",), strict=True)
    (tmp_path / "void").mkdir()
    assert packed(tmp_path)[1].left_out["no class of the bundle: void/"] == ["void/"]


def test_capitals_tell_no_classes_apart_unless_the_bundle_does(tmp_path: Path) -> None:
    photos(tmp_path, ("Cat", "DOG"))
    private, report = packed(tmp_path)
    assert np.bincount(every(private)[1], minlength=3).tolist() == [0, 10, 10]
    assert {"Cat is taken as cat", "DOG is taken as dog"} <= set(report.notes)
    assert not report.left_out
    target = PackTarget(("Cat", "cat"), 8, "crop", {})
    assert [target.label(name) for name in ("cat", "Cat", "CAT")] == [1, 0, None]


@pytest.mark.parametrize(
    ("maps", "match"),
    [
        ("dogs", "--map is 'dogs', expected one such as dogs=dog"),
        ("=dog", "expected one such as"),
        ("wolves=dog", "--map wolves=...: there is no wolves, expected one of cat, dog"),
    ],
)
def test_maps_that_lead_nowhere_are_refused(tmp_path: Path, maps: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        packed(photos(tmp_path), maps=(maps,))


def test_images_keep_their_ids_when_the_folder_grows(tmp_path: Path) -> None:
    before = by_id(packed(photos(tmp_path))[0])
    photos(tmp_path, ("owl",), num=5)
    (tmp_path / "cat" / "0.png").unlink()
    (tmp_path / "cat" / "1.png").rename(tmp_path / "cat" / "renamed.png")
    after = by_id(packed(tmp_path)[0])
    assert len(after) == 24
    assert len(before.keys() & after.keys()) == 19
    assert all(before[number] == after[number] for number in before.keys() & after.keys())


def test_ids_of_two_owners_do_not_meet_even_for_the_same_photos(tmp_path: Path) -> None:
    first, second = (by_id(packed(photos(tmp_path), key)[0]) for key in (KEY, OTHER_KEY))
    assert sorted(first.values()) == sorted(second.values())
    assert first.keys() & second.keys() == set()
    assert all(0 <= number < 2**63 for number in first)


def test_a_corrected_label_keeps_the_id(tmp_path: Path) -> None:
    before = by_id(packed(photos(tmp_path))[0])
    (tmp_path / "cat" / "3.png").rename(tmp_path / "dog" / "moved.png")
    assert by_id(packed(tmp_path)[0]) == before


def test_equal_images_have_ids_of_their_own_and_stay_on_one_side(tmp_path: Path) -> None:
    photos(tmp_path, num=20)
    for number in range(20):
        content = (tmp_path / "cat" / f"{number}.png").read_bytes()
        (tmp_path / "cat" / f"again{number}.png").write_bytes(content)
    (tmp_path / "dog" / "wrong.png").write_bytes((tmp_path / "cat" / "0.png").read_bytes())
    private, report = packed(tmp_path, validation_share=0.3)
    train = {image.tobytes() for image in private.train.images}
    validation = {image.tobytes() for image in private.validation.images}
    assert len(np.unique(every(private)[2])) == 61
    assert train & validation == set()
    assert report.notes == [
        "21 of 61 images are there a second time",
        "1 image has more than one label, of which one is right at most",
    ]


def test_when_all_images_are_one_there_is_still_something_to_validate_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.full((10, 8, 8, 3), 7, np.uint8), labels=np.zeros(10, int))
    private, _ = packed(tmp_path / "d.npz")
    assert (len(private.train), len(private.validation)) == (9, 1)
    assert len(np.unique(every(private)[2])) == 10


def test_no_class_goes_to_one_side_as_a_whole_because_its_images_are_equal(tmp_path: Path) -> None:
    images = np.repeat(np.array([40, 200], np.uint8), 10 * 8 * 8 * 3).reshape(20, 8, 8, 3)
    np.savez(tmp_path / "d.npz", images=images, labels=np.repeat([0, 1], 10))
    private, _ = packed(tmp_path / "d.npz")
    assert [np.bincount(part.labels).tolist() for part in (private.train, private.validation)] == [
        [9, 9],
        [1, 1],
    ]


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((8, 8), []),
        ((6, 6), ["images: smaller than 8 px: enlarged"]),
        ((12, 12), ["images: of 12 x 12 px: scaled to 8 px"]),
        (
            (8, 12),
            [
                "images: not square: cut to the middle square (--fit crop; pad and stretch keep everything)",
                "images: of 8 x 12 px: scaled to 8 px",
            ],
        ),
    ],
)
def test_arrays_of_another_size_are_scaled_and_told(
    tmp_path: Path, shape: tuple[int, int], told: list[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, *shape, 3)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.array([0, 1, 2] * 2))
    private, report = packed(tmp_path / "d.npz")
    assert private.image_size == 8
    assert dict(report.converted) == dict.fromkeys(told, 6)


def test_one_hot_of_another_width_is_told_the_line_that_mends_it(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    labels = np.eye(2, dtype=np.int64)[[0, 1, 0, 1, 0, 1]]
    np.savez(tmp_path / "d.npz", images=images, labels=labels)
    with pytest.raises(DatasetError) as caught:
        packed(tmp_path / "d.npz")
    said = str(caught.value)
    assert "has 2 classes, the bundle 3: labels = labels.argmax(axis=1)   # if they count as" in said
    names: dict[str, Any] = {"labels": labels}
    exec(re.findall(r"labels = labels\.argmax\(axis=1\)", said)[0], names)
    np.savez(tmp_path / "d.npz", images=images, labels=names["labels"])
    assert np.bincount(every(packed(tmp_path / "d.npz")[0])[1]).tolist() == [3, 3]


def test_numbers_from_1_of_more_classes_are_told_both(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((10, 8, 8, 3), np.uint8), labels=np.arange(1, 11))
    said = "if they count from 1, first labels -= 1; if the others are no classes, keep = labels <= 2"
    with pytest.raises(DatasetError, match=re.escape(said)):
        packed(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photos.zip", "is an archive: unpack it, and give the folder that the class folders are in"),
        ("photos.tar.gz", "is an archive: unpack it"),
        (
            "1.PNG",
            "is one picture: give a folder with one folder of photos a class, as",
        ),
        ("notes.txt", "holds no images that can be read: expected a folder with one folder"),
    ],
)
def test_what_is_no_folder_is_told_what_to_give(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(DatasetError, match=re.escape(f"{tmp_path / name} {said}")):
        packed(tmp_path / name)


@pytest.mark.parametrize("closed", ["", "cat"])
def test_a_folder_that_may_not_be_read_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    """A whole class less would be one line in a summary; whoever runs the tests may read everything."""
    shut, listed = str(photos(tmp_path) / closed).rstrip("/"), os.listdir

    def listdir(path: Any = ".") -> list[str]:
        if str(path) == shut:
            raise PermissionError(13, "Permission denied", shut)
        return listed(path)

    def iterdir(path: Path) -> Iterator[Path]:
        return iter([path / name for name in listdir(path)])

    monkeypatch.setattr(os, "listdir", listdir)
    monkeypatch.setattr(Path, "iterdir", iterdir)
    said = f"the folder {shut} may not be read by this user: chmod -R u+rX {shut}, as its owner"
    with pytest.raises(DatasetError, match=f"^{re.escape(said)}$"):
        packed(tmp_path)


def test_a_test_part_is_not_even_looked_at(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 2, 0])
    images += np.arange(4, dtype=np.uint8)[:, None, None, None]
    np.savez(
        tmp_path / "d.npz", x_train=images, y_train=labels, x_test=np.full((4, 2), np.nan), y_test=labels + 9
    )
    private, report = packed(tmp_path / "d.npz")
    assert len(every(private)[1]) == 4
    assert report.left_out == {"a test part: nothing is trained on it": ["x_test"]}


def test_numbers_from_1_are_asked_about(tmp_path: Path) -> None:
    """Three classes that count from 1, for a bundle of three, or two of its classes: nobody can tell."""
    images = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "d.npz", images=images.astype(np.uint8), labels=np.arange(8) % 2 + 1)
    match = (
        "labels holds 1 to 2, and no 0, which is owl: if they count from 1, labels -= 1; if this device has "
        "no owl, --allow-empty-classes"
    )
    with pytest.raises(DatasetError, match=match):
        packed(tmp_path / "d.npz")
    private, _ = packed(tmp_path / "d.npz", allow_empty_classes=True)
    assert np.bincount(every(private)[1]).tolist() == [0, 4, 4]


def test_ids_count_on_where_two_meet() -> None:
    assert len(set(sample_ids([b"x", b"x", b"y", b"x"]).tolist())) == 4
    assert sample_ids([b"x", b"y"]).tolist() == sample_ids([b"y", b"x"]).tolist()[::-1]


def test_a_validation_folder_is_the_validation_part_and_a_test_folder_is_not_trained_on(
    tmp_path: Path,
) -> None:
    for part, num in (("train", 8), ("val", 3), ("test", 2)):
        photos(tmp_path / part, num=num)
    private, report = packed(tmp_path)
    assert (len(private.train), len(private.validation)) == (16, 6)
    assert report.left_out == {"a test part: nothing is trained on it": ["test/"]}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array(["dog", "owl", "cat", "emu"] * 5), [2, 0, 1]),
        (np.array([2, 0, 1] * 5), [2, 0, 1]),
        (np.eye(3)[[2, 0, 1] * 5], [2, 0, 1]),
    ],
    ids=["names", "numbers", "one-hot"],
)
def test_labels_of_an_array_file_are_matched_by_name_or_number(
    tmp_path: Path, labels: NDArray[Any], expected: list[int]
) -> None:
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=labels)
    private, report = packed(tmp_path / "d.npz")
    pixels, numbers, _ = every(private)
    period = 4 if labels.dtype.kind == "U" else 3
    assert len(numbers) == 15
    assert numbers.tolist() == [expected[pixel % period] for pixel in pixels[:, 0, 0, 0]]
    if period == 4:
        assert report.left_out == {"no class of the bundle": ["labels emu (5 images)"]}
    else:
        assert report.notes[0] == "labels are numbers, and taken as the bundle counts: 0 owl, 1 cat, 2 dog"


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (
            np.arange(12) % 3 + 1,
            r"labels holds 1 to 3, expected 0 to 2 \(owl, cat, dog\): if they count from 1, labels -= 1",
        ),
        (np.arange(12) % 3 - 1, r"labels holds -1 to 1, .*: if they count from -1, labels \+= 1"),
        (
            np.arange(12) % 2 * 99,
            r"labels holds 0 to 99, .*: if the others are no classes, keep = labels <= 2; images, labels = ",
        ),
        (
            np.eye(5)[np.arange(12) % 3],
            r"has 5 classes, the bundle 3: .*argmax\(axis=1\) .*: 0 owl, 1 cat, 2 dog; else",
        ),
        (np.array(["emu"] * 12), "holds 0 images of the bundle's classes .*emu.*; --map NAME=CLASS maps"),
    ],
    ids=["from 1", "from -1", "gaps", "another width", "other names"],
)
def test_labels_that_are_not_the_bundles_are_refused(
    tmp_path: Path, labels: NDArray[Any], match: str
) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((12, 8, 8, 3), np.uint8), labels=labels)
    with pytest.raises(DatasetError, match=match):
        packed(tmp_path / "d.npz")


SOURCE = """
import io
from pathlib import Path
import numpy as np
from PIL import Image

def frames():
    for number in range(4):
        pixels = np.full((8, 8, 3), number, np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        Image.fromarray(pixels).save(f"{number}.png")
        yield pixels, "cat"
        yield Image.fromarray(pixels), 2
        yield stream.getvalue(), "dog"
        yield f"{number}.png", "owl"
        yield pixels / 255, 0
        yield Path("missing.png"), "owl"
        yield pixels, "emu"

def wrong():
    yield 5

not_callable = 3
"""


def test_a_function_may_give_arrays_pictures_bytes_and_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "a_camera.py").write_text(SOURCE)
    private, report = packed("a_camera:frames")
    images, labels, _ = every(private)
    assert np.bincount(labels).tolist() == [8, 4, 8]
    assert sorted(set(images.reshape(-1).tolist())) == [0, 1, 2, 3]
    assert [len(names) for names in report.left_out.values()] == [4, 4]
    for source, match in (
        ("a_camera:wrong", "does not yield pairs of an image"),
        ("a_camera:not_callable", "cannot be had: it is no function"),
        ("a_camera:none", "cannot be had: .*expected module:function"),
        ("no_such_camera:frames", "cannot be had"),
        ("nowhere", "no images at 'nowhere': expected a folder"),
    ):
        with pytest.raises(GKTError, match=match):
            packed(source)


FAILING = """
import numpy as np

def night():
    yield np.full((8, 8, 3), 0.9), "cat"
    yield np.full((8, 8, 3), 180.0), "cat"

def cable():
    yield np.zeros((8, 8, 3), np.uint8), "cat"
    raise RuntimeError("the camera does not answer")

def halves():
    yield np.zeros((8, 8, 3), np.uint8), 0.5
"""


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("night", r"item 1: the image is float64 up to 180, expected uint8, or floats in 0 to 1"),
        ("cable", r"a_failing_camera:cable failed: RuntimeError: the camera does not answer"),
        ("halves", r"does not yield pairs .*'float'"),
    ],
)
def test_a_function_that_fails_or_whose_meaning_is_not_certain_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "a_failing_camera.py").write_text(FAILING)
    sys.modules.pop("a_failing_camera", None)
    with pytest.raises(DatasetError, match=match):
        packed(f"a_failing_camera:{name}")


def test_a_name_is_the_same_however_its_letters_are_composed(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Hündin") for form in ("NFC", "NFD"))
    assert composed != apart
    photos(tmp_path, ("cat", apart))
    for name in (composed, apart):
        private, report = pack(str(tmp_path), PackTarget(("cat", name), 8, "crop", {}), PackOptions(), KEY)
        assert np.bincount(every(private)[1]).tolist() == [10, 10] and not report.left_out
    private, _ = packed(tmp_path, maps=(f"{composed}=dog",))
    assert np.bincount(every(private)[1]).tolist() == [0, 10, 10]
    private, _ = packed(tmp_path, maps=(f"{apart}=dog",))
    assert np.bincount(every(private)[1]).tolist() == [0, 10, 10]


def test_packed_again_what_was_trained_on_is_not_validated_with(tmp_path: Path) -> None:
    """However the folder grows and shrinks, and equal images come."""
    before, _ = packed(photos(tmp_path))
    for number in range(9):
        photos(tmp_path / "more", ("owl", "cat"), num=number + 3)
        for name in ("owl", "cat"):
            for file in (tmp_path / "more" / name).iterdir():
                (tmp_path / name).mkdir(exist_ok=True)
                file.rename(tmp_path / name / f"{number}-{file.name}")
        (tmp_path / "dog" / f"{number}.png").unlink()
        now, _ = pack(str(tmp_path), PackTarget(CLASSES, 8, "crop", {}), PackOptions(), KEY, before)
        for part, other in ((before.train, now.validation), (before.validation, now.train)):
            assert not np.intersect1d(part.sample_ids, other.sample_ids).size
        shown = [{image.tobytes() for image in part.images} for part in (now.train, now.validation)]
        assert shown[0] & shown[1] == set()
        share = len(now.validation) / (len(now.train) + len(now.validation))
        assert 0.05 < share < 0.2
        before = now


def test_a_listing_changes_with_every_file_below_links_too(tmp_path: Path) -> None:
    root, far = photos(tmp_path / "photos"), photos(tmp_path / "far", ("a",))
    (root / "cat" / "linked").symlink_to(far)
    (root / "cat" / "circle").symlink_to(root)
    (root / "cat" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    seen = {tuple(listing(str(root)))}
    assert len(next(iter(seen))) == 30
    for change in (
        (far / "a" / "3.png").unlink,
        lambda: (root / "dog" / "3.png").rename(root / "dog" / "x.png"),
        lambda: (root / "dog" / "5.png").write_bytes(b"cut"),
    ):
        change()
        seen.add(tuple(listing(str(root))))
    assert len(seen) == 4
    assert list(listing(str(tmp_path / "gone"))) == list(listing("camera:frames")) == []


def test_too_few_images_are_refused_with_what_was_left_out(tmp_path: Path) -> None:
    photos(tmp_path, ("cat",), num=2)
    (tmp_path / "cat" / "bad.png").write_bytes(b"no")
    with pytest.raises(
        DatasetError,
        match=r"holds 2 images .*at least 3.*: put 1 more into .*/owl/ or that of.*damaged, or no image",
    ):
        packed(tmp_path)


def test_the_folder_of_one_class_is_told_to_be_one_too_deep(tmp_path: Path) -> None:
    photos(tmp_path / "mine" / "cat", ("holiday",))
    said = f"it is the folder of one class, give the one that it lies in: {tmp_path / 'mine'}"
    with pytest.raises(DatasetError, match=re.escape(said)):
        packed(tmp_path / "mine" / "cat")


def test_photos_that_lie_beside_each_other_are_told_to_be_sorted(tmp_path: Path) -> None:
    flat = photos(tmp_path, ("cat",)) / "cat"
    said = (
        f"the photos lie in {flat} itself: make a folder for each class, {flat / 'owl'}/ and {flat / 'cat'}/"
    )
    with pytest.raises(DatasetError, match=re.escape(said)):
        packed(flat)
    # Where there are folders, whatever lies beside them is no reason to say so.
    Image.new("RGB", (8, 8)).save(tmp_path / "stray.png")
    assert not any("itself" in line for line in packed(tmp_path)[1].lines())


@pytest.mark.parametrize("inner", ["photos", "2026/my photos", "photos/train"])
def test_one_folder_too_high_is_told_where_the_class_folders_are(tmp_path: Path, inner: str) -> None:
    photos(tmp_path / "up" / inner, ("cat", "Dog"))
    if inner.endswith("/train"):
        photos(tmp_path / "up" / inner.replace("train", "val"), ("cat",))
    (tmp_path / "up" / "__MACOSX" / "cat").mkdir(parents=True)
    right = (tmp_path / "up" / inner.removesuffix("/train")).as_posix()
    with pytest.raises(DatasetError) as caught:
        packed(tmp_path / "up")
    said = f"the class folders lie deeper, in {shlex.quote(right)} ("
    assert said in str(caught.value) and "--map" not in str(caught.value)
    assert str(caught.value).endswith(f"give that folder, gkt data pack {shlex.quote(right)}")
    assert len(packed(right)[0].train) >= 18


def test_train_alone_is_told_to_be_given(tmp_path: Path) -> None:
    photos(tmp_path / "train")
    said = f"has a train folder only, expected train and test, or class folders: give {tmp_path / 'train'} if"
    with pytest.raises(DatasetError, match=re.escape(said)):
        packed(tmp_path)


def test_of_several_folders_with_class_folders_all_are_named(tmp_path: Path) -> None:
    photos(tmp_path / "a")
    photos(tmp_path / "b", ("owl",))
    with pytest.raises(DatasetError, match=r"/a \(cat, dog\), or one of 2: .*/b \(owl\): give that folder"):
        packed(tmp_path)
    # Whoever maps one of them means it, and whoever has a class here is not too high.
    assert set(every(packed(tmp_path, maps=("a=dog",))[0])[1].tolist()) == {2}
    photos(tmp_path, ("cat",))
    assert any(reason.startswith("no class of the bundle: a/") for reason in packed(tmp_path)[1].left_out)


def test_a_bundle_without_names_and_a_map_to_no_class_are_refused(
    digits_bundle: Bundle, tmp_path: Path
) -> None:
    unnamed = dataclasses.replace(digits_bundle.manifest, class_names=[])
    for source, labels in (
        (str(tmp_path), f"the folders in {tmp_path}"),
        ("mine.npz", "the labels in mine.npz"),
        ("camera:frames", "the labels that camera:frames yields"),
    ):
        said = f"the bundle does not name its 10 classes, so that {labels} cannot be matched with them"
        with pytest.raises(ArtifactError, match=f"^{re.escape(said)}: export it with"):
            target_of(unnamed, PackOptions(), source)
    named = dataclasses.replace(unnamed, class_names=[str(number) for number in range(10)])
    with pytest.raises(ConfigError, match="--map zero=null: there is no class null in the bundle"):
        target_of(named, PackOptions(maps=("zero=null",)), "mine.npz")


def golden(folder: Path) -> Path:
    """Pack what the golden file was packed from, with the same key."""
    images = (np.arange(5 * 8 * 8 * 3) % 251).astype(np.uint8).reshape(5, 8, 8, 3)
    np.savez(folder / "golden.npz", images=images, labels=np.array([1, 2, 1, 2, 1]))
    private, _ = packed(folder / "golden.npz", allow_empty_classes=True)
    save_private_data(folder / "packed.npz", private, KEY)
    return folder / "packed.npz"


def test_the_format_is_that_of_the_golden_file(tmp_path: Path) -> None:
    """A device's file of this format version stays readable, and what writes it writes the same."""
    with np.load(GOLDEN, allow_pickle=False) as kept, np.load(golden(tmp_path), allow_pickle=False) as made:
        assert sorted(kept) == sorted(made)
        for name in kept:
            assert kept[name].dtype == made[name].dtype, name
            assert np.array_equal(kept[name], made[name]), name
        assert int(kept["format_version"]) == 1
    private = load_private_data(GOLDEN)
    assert private.class_names == CLASSES
    assert (len(private.train), len(private.validation)) == (4, 1)
    assert owner_key_of(GOLDEN) == KEY


def test_a_newer_format_is_refused_and_an_older_one_has_no_number(tmp_path: Path) -> None:
    with np.load(GOLDEN) as kept:
        arrays = dict(kept)
    np.savez(tmp_path / "new.npz", **(arrays | {"format_version": np.int64(2)}))
    with pytest.raises(
        DatasetError, match=r"has format version 2, this gkt reads 1 to 1: install the version"
    ):
        load_private_data(tmp_path / "new.npz")
    del arrays["format_version"], arrays["owner_key"]
    np.savez(tmp_path / "old.npz", **arrays)
    assert by_id(load_private_data(tmp_path / "old.npz")) == by_id(load_private_data(GOLDEN))
