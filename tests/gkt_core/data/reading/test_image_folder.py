"""Folders as people have them: what systems leave in them, links, parts, names, files that are no images."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gkt_core.data.datasets import load_dataset
from gkt_core.data.reading import images
from gkt_core.errors import DatasetError


def photos(root: Path, classes: tuple[str, ...] = ("cat", "dog"), num: int = 6) -> Path:
    """Each class has a grey of its own, each photo is 40 x 60."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(num):
            value = 40 + 50 * label
            Image.fromarray(np.full((40, 60, 3), value, np.uint8)).save(root / name / f"{number:02d}.png")
    return root


def labels_are_right(root: Path, num: int) -> None:
    dataset = load_dataset(str(root))
    pixels = np.concatenate([dataset.x_train, dataset.x_test])
    labels = np.concatenate([dataset.y_train, dataset.y_test])
    assert len(labels) == num
    assert (pixels == (40 + 50 * labels)[:, None, None, None]).all()


def left_out(root: Path) -> dict[str, list[str]]:
    return load_dataset(str(root)).reading.left_out


SYSTEM = "hidden, or the computer's own (._*, __MACOSX, Thumbs.db)"


def apple_double(root: Path) -> str:
    (root / "cat" / "._00.png").write_bytes(b"\0\5\x16\7" + bytes(100))
    return "cat/._00.png"


def macosx(root: Path) -> str:
    (root / "__MACOSX" / "cat").mkdir(parents=True)
    (root / "__MACOSX" / "cat" / "._00.png").write_bytes(b"\0\5\x16\7" + bytes(100))
    return "__MACOSX/"


def thumbnails(root: Path) -> str:
    (root / "cat" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    return "cat/Thumbs.db"


def hidden_folder(root: Path) -> str:
    shutil.copytree(root / "cat", root / "cat" / ".thumbnails")
    return "cat/.thumbnails"


@pytest.mark.parametrize("leave", [apple_double, macosx, thumbnails, hidden_folder])
def test_what_systems_leave_is_left_out_and_counted(tmp_path: Path, leave: Callable[[Path], str]) -> None:
    root = photos(tmp_path / "photos")
    name = leave(root)
    assert left_out(root) == {SYSTEM: [name]}
    labels_are_right(root, 12)
    # No photo of anybody: nothing to be strict about.
    assert len(load_dataset(str(root), strict=True).reading.left_out) == 1


@pytest.mark.parametrize("target", [".", "cat", "dog", ".."])
def test_links_that_lead_round_in_circles_give_no_image_another_label(tmp_path: Path, target: str) -> None:
    root = photos(tmp_path / "photos")
    (root / "cat" / "loop").symlink_to(root / target)
    assert list(left_out(root).values()) == [["cat/loop"]]
    labels_are_right(root, 12)


def test_links_to_photos_elsewhere_are_followed_once(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    elsewhere = photos(tmp_path / "elsewhere", ("cat",), 3)
    for name in ("a", "b"):
        (root / "cat" / name).symlink_to(elsewhere / "cat")
    (root / "dog" / "gone.png").symlink_to(tmp_path / "nowhere")
    labels_are_right(root, 15)
    assert sorted(map(tuple, left_out(root).values())) == [("cat/b",), ("dog/gone.png",)]


def test_names_in_any_script_are_composed(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Hündin mit Punkt.")
    root = photos(tmp_path / "photos", ("猫", decomposed, "الكلب"))
    dataset = load_dataset(str(root))
    assert set(dataset.class_names) == {"猫", "Hündin mit Punkt.", "الكلب"}
    assert np.bincount(np.concatenate([dataset.y_train, dataset.y_test])).tolist() == [6, 6, 6]


def test_a_validation_folder_is_the_test_part_where_there_is_no_other(tmp_path: Path) -> None:
    photos(tmp_path / "train")
    photos(tmp_path / "val", num=2)
    dataset = load_dataset(str(tmp_path))
    assert (len(dataset.x_train), len(dataset.x_test)) == (12, 4)
    assert dataset.reading.notes == [
        "there is no test folder: val is the test part",
        "10 of 12 images are there a second time",
        "4 of 4 images that are not trained on are equal to one that is: accuracy on them says little",
    ]
    photos(tmp_path / "test", num=1)
    dataset = load_dataset(str(tmp_path))
    assert (len(dataset.x_train), len(dataset.x_test)) == (12, 2)
    assert list(dataset.reading.left_out.values()) == [["val/"]]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load_dataset(str(photos(tmp_path, ("bus", "train", "tram")))).class_names == (
        "bus",
        "train",
        "tram",
    )


def test_parts_without_one_to_train_on_are_refused(tmp_path: Path) -> None:
    photos(tmp_path / "val")
    photos(tmp_path / "test")
    with pytest.raises(DatasetError, match="has a test and a val folder only, expected train and test"):
        load_dataset(str(tmp_path))


def test_heic_beside_others_is_counted_where_it_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path / "photos")

    def becomes_heic(number: int, name: str) -> None:
        (root / "dog" / f"{number:02d}.png").unlink()
        (root / "dog" / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))

    for number, name in enumerate(("00.HEIC", "01.HEIC", "02.jpg")):
        becomes_heic(number, name)
    Image.init()
    monkeypatch.setattr(Image, "ID", [each for each in Image.ID if each != "HEIF"])
    monkeypatch.setattr(images, "can_read_heif", lambda: False)
    ((reason, names),) = left_out(root).items()
    assert "pip install 'gkt-edge[data]'" in reason
    assert names == ["dog/00.HEIC", "dog/01.HEIC", "dog/02.jpg"]
    with pytest.raises(DatasetError, match=r"3 images cannot be taken \(HEIC"):
        load_dataset(str(root), strict=True)
    for number in range(3, 6):
        becomes_heic(number, f"{number:02d}.HEIC")
    with pytest.raises(DatasetError, match=r"dog holds no images that can be read \(6: HEIC, which needs"):
        load_dataset(str(root))


def test_files_that_are_no_images_are_counted_by_suffix(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    (root / "cat" / "clip.MOV").write_bytes(b"film")
    (root / "README").write_text("mine")
    shutil.copy(root / "cat" / "00.png", root / "stray.png")
    assert left_out(root) == {
        "no image that is known (.mov)": ["cat/clip.MOV"],
        "no image that is known (without a suffix)": ["README"],
        "in no class folder": ["stray.png"],
    }


def test_an_empty_class_is_taken_when_it_is_asked_for(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    (root / "owl").mkdir()
    with pytest.raises(DatasetError, match=r"class folder owl holds no images: .*--allow-empty-classes"):
        load_dataset(str(root))
    assert load_dataset(str(root), allow_empty_classes=True).class_names == ("cat", "dog", "owl")


def test_the_summary_names_a_few_and_counts_the_others(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    for number in range(8):
        (root / "cat" / f"bad{number}.png").write_bytes(b"no")
    lines = list(load_dataset(str(root)).reading.lines())
    assert lines[0] == "images taken: 12; files left out: 8"
    assert lines[2].endswith("cat/bad3.png, cat/bad4.png and 3 more (--json lists all)")


def test_a_folder_that_may_not_be_read_is_left_out_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path / "photos")
    closed = root / "cat" / "private"
    closed.mkdir()
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    labels_are_right(root, 12)
    assert left_out(root) == {
        "a folder that may not be read, with all that is in it (chmod -R u+rX)": ["cat/private/"]
    }
