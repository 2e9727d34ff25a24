"""`gkt data split` and `gkt data show`: the files they write, and nothing on disk where they cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from gkt_core.data.command import data
from gkt_core.data.datasets import load_dataset
from gkt_core.data.private_data import load_private_data, load_test_data
from gkt_core.errors import GKTError, InputError
from gkt_core.files import new_folder
from tests.conftest import LONGEST_SECONDS


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, so that whatever is left behind is seen."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments])


def split(*arguments: Any) -> str:
    result = run("split", *arguments)
    if result.exception:
        raise result.exception
    return result.output


def show(*arguments: Any) -> str:
    result = run("show", *arguments)
    if result.exception:
        raise result.exception
    return result.output


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def gkt(*arguments: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gkt_core.cli", "data", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )


def refused(*arguments: Any) -> str:
    """A refusal: exit code 2 as the command `gkt` gives it, and the message."""
    with pytest.raises(GKTError) as caught:
        split(*arguments)
    assert caught.value.exit_code == 2
    return str(caught.value)


# --- split


def test_split_writes_a_file_a_device_a_test_set_and_a_description(here: Path) -> None:
    output = split("--clients", 3, "--limit", 100, "--out", "split")
    names = {f"clients/client-{number:03d}.npz" for number in range(3)} | {"test.npz", "partition.json"}
    assert set(tree(here / "split")) == names
    assert os.listdir(here) == ["split"]
    assert "split: 3 clients, 10 classes, images 16 px, 360 test images" in output
    assert "clients/client-002.npz: 30 to train, 3 to validate" in output


def test_partition_json_says_what_the_files_hold(here: Path) -> None:
    printed = json.loads(split("--limit", 101, "--partition", "dirichlet", "--out", "split", "--json"))
    written = json.loads((here / "split" / "partition.json").read_text())
    assert printed == written
    dataset = load_dataset("digits", limit=101)
    mean, std = dataset.pixel_statistics()
    clients = written.pop("clients")
    assert written == {
        "dataset": "digits",
        "num_classes": 10,
        "class_names": list("0123456789"),
        "image_size": 16,
        "pixel_mean": mean,
        "pixel_std": std,
        "horizontal_flip": False,
        "partition": "dirichlet",
        "dirichlet_alpha": 0.5,
        "seed": 0,
        "num_test_examples": 360,
        "pretraining_file": None,
        "num_pretraining_examples": 0,
    }
    assert [client["client_id"] for client in clients] == [f"client-{number:03d}" for number in range(4)]
    for client in clients:
        private = load_private_data(here / "split" / client["file"])
        assert client["num_examples"] == len(private.train) == sum(client["class_counts"])
        assert client["num_validation_examples"] == len(private.validation)
        assert np.bincount(private.train.labels, minlength=10).tolist() == client["class_counts"]


def test_every_image_is_on_one_device_once_with_its_own_label(here: Path) -> None:
    split("--limit", 200, "--seed", 3, "--out", "split")
    dataset = load_dataset("digits", limit=200, seed=3)
    row_of = {sample_id: row for row, sample_id in enumerate(dataset.sample_ids.tolist())}
    seen = []
    for path in sorted((here / "split" / "clients").iterdir()):
        private = load_private_data(path)
        for samples in (private.train, private.validation):
            seen += samples.sample_ids.tolist()
            rows = [row_of[sample_id] for sample_id in samples.sample_ids.tolist()]
            assert np.array_equal(samples.images, dataset.x_train[rows])
            assert np.array_equal(samples.labels, dataset.y_train[rows])
            assert (np.diff(samples.sample_ids) > 0).all()
    assert sorted(seen) == sorted(dataset.sample_ids.tolist())


def test_the_test_set_is_the_datasets(here: Path) -> None:
    split("--limit", 40, "--out", "split")
    test, dataset = load_test_data(here / "split" / "test.npz"), load_dataset("digits")
    assert np.array_equal(test.images, dataset.x_test)
    assert np.array_equal(test.labels, dataset.y_test)


@pytest.mark.parametrize("scheme", ["iid", "dirichlet"])
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(here: Path, scheme: str) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        split("--limit", 80, "--partition", scheme, "--seed", seed, "--out", name)
    assert tree(here / "a") == tree(here / "b")
    first, other = tree(here / "a"), tree(here / "c")
    assert all(first[name] != other[name] for name in first if name != "test.npz")
    assert first["test.npz"] == other["test.npz"]


def test_an_empty_folder_may_be_the_output_and_folders_are_made(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "link").symlink_to("empty", target_is_directory=True)
    split("--limit", 40, "--out", "link")
    assert (here / "empty" / "partition.json").is_file()
    split("--limit", 40, "--out", here / "a" / "b" / "c")
    assert (here / "a" / "b" / "c" / "partition.json").is_file()


def test_a_split_in_a_real_process(here: Path) -> None:
    done = gkt("split", "--clients", 2, "--limit", 40, "--out", "split", "--json", cwd=here)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["num_classes"] == 10
    shown = gkt("show", "split/clients/client-001.npz", "--json", cwd=here)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout)["num_examples"] == 18
    split("--clients", 2, "--limit", 40, "--out", "again")
    assert tree(here / "split") == tree(here / "again")


def test_a_refusal_in_a_real_process_is_one_line_and_exit_code_2(here: Path) -> None:
    done = gkt("split", "--clients", 2000, "--out", "split", cwd=here)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: 2000 clients and 1437 training images")
    assert done.stderr.count("\n") == 1
    assert list(here.iterdir()) == []


# --- refusals: exit code 2, nothing written


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--dataset", "no/such/folder"], "no dataset 'no/such/folder'"),
        (["--dataset", ""], "no dataset ''"),
        (["--dataset", "none.npz"], "cannot read none.npz"),
        (["--clients", 360], "at most 359 clients"),
        (["--clients", 0], "--clients is 0"),
        (["--clients", 11, "--limit", 40], "at most 10 clients"),
        (["--image-size", 30], "--image-size is 30"),
        (["--image-size", 0], "--image-size is 0"),
        (["--image-size", 1024], "--image-size is 1024"),
        (["--limit", 0], "--limit is 0"),
        (["--seed", -1], "--seed is -1"),
        (["--validation-share", 0], "--validation-share is 0.0"),
        (["--validation-share", 1], "--validation-share is 1.0"),
        (["--validation-share", "nan"], "--validation-share is nan"),
        (["--partition", "dirichlet", "--dirichlet-alpha", 0], "--dirichlet-alpha is 0.0"),
        (["--partition", "dirichlet", "--dirichlet-alpha", "nan"], "--dirichlet-alpha is nan"),
        (
            ["--partition", "dirichlet", "--dirichlet-alpha", 0.001, "--clients", 50, "--limit", 200],
            "raise alpha",
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_bad_input_leaves_nothing_behind(here: Path, arguments: Any, match: str) -> None:
    assert match in refused(*arguments, "--out", "a/split")
    assert list(here.iterdir()) == []


def test_a_folder_with_a_broken_image_leaves_nothing_behind(here: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name / "0.png")
    (tmp_path / "images" / "cat" / "1.png").write_bytes(b"no image")
    message = refused("--dataset", tmp_path / "images", "--strict", "--out", "split")
    assert "1 image cannot be taken (damaged, or no image at all: cat/1.png)" in message
    assert list(here.iterdir()) == []


def test_a_label_outside_the_classes_leaves_nothing_behind(here: Path, tmp_path: Path) -> None:
    pictures = np.zeros((20, 8, 8, 3), np.uint8)
    np.savez(
        tmp_path / "d.npz",
        x_train=pictures,
        y_train=np.arange(20) % 2,
        x_test=pictures,
        y_test=np.arange(20) % 3,
    )
    message = refused("--dataset", tmp_path / "d.npz", "--clients", 2, "--out", "split")
    assert "y_test holds the label 2, expected 0 to 1" in message
    assert list(here.iterdir()) == []


def test_an_output_that_is_not_empty_is_left_alone_before_anything_is_read(here: Path) -> None:
    (here / "split").mkdir()
    (here / "split" / "mine.txt").write_text("mine")
    assert "already exists and is not empty" in refused("--dataset", "no/such/folder", "--out", "split")
    assert tree(here) == {"split/mine.txt": b"mine"}


def test_an_output_that_is_a_file_or_below_one_or_the_current_folder_is_refused(here: Path) -> None:
    (here / "taken").write_text("mine")
    assert "is a file" in refused("--limit", 40, "--out", "taken")
    assert "cannot" in refused("--limit", 40, "--out", "taken/split")
    assert "File name too long" in refused("--limit", 40, "--out", "x" * 300)
    assert tree(here) == {"taken": b"mine"}
    (here / "taken").unlink()
    assert "is the current folder" in refused("--limit", 40, "--out", ".")


def test_an_option_that_is_no_number_is_clicks_own_exit_code_2(here: Path) -> None:
    for arguments in (["--clients", "many"], ["--partition", "fair"], ["--image-size", "1.5"]):
        assert run("split", *arguments, "--out", "split").exit_code == 2
    assert run("split").exit_code == 2
    assert list(here.iterdir()) == []


def test_a_crash_half_way_leaves_nothing_behind(here: Path) -> None:
    for error in (RuntimeError("disk"), KeyboardInterrupt()):
        with pytest.raises(type(error)), new_folder(here / "a" / "b" / "split") as folder:
            (folder / "half").write_text("written")
            raise error
        assert list(here.iterdir()) == []


def test_a_folder_that_cannot_take_its_place_is_an_input_error(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(path: Path, target: Any) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    with (
        pytest.raises(InputError, match=r"cannot replace .*busy.*choose another --out"),
        new_folder(here / "split"),
    ):
        pass
    assert list(here.iterdir()) == []


def test_photos_end_with_what_was_left_out_and_a_contact_sheet(here: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (12, 8), (name == "cat" and "red") or "blue").save(
                tmp_path / "images" / name / f"{number}.png"
            )
    (tmp_path / "images" / "cat" / "6.png").write_bytes(b"no image")
    (tmp_path / "images" / "cat" / "._0.png").write_bytes(b"\0\5\x16\7")
    arguments = ["--dataset", tmp_path / "images", "--clients", 1]

    output = split(*arguments, "--out", "split")
    printed = json.loads(split(*arguments, "--out", "again", "--contact-sheet", "sheet.png", "--json"))

    assert "images taken: 12; files left out: 2" in output
    assert "damaged, or no image at all: cat/6.png" in output
    reading = printed.pop("reading")
    assert reading["taken"] == 12
    assert sorted(reading["left_out"].values()) == [["cat/._0.png"], ["cat/6.png"]]
    assert sum(reading["converted"].values()) == 24
    # Names of photos stay where the photos are.
    assert json.loads((here / "again" / "partition.json").read_text()) == printed
    assert not (here / "again" / "contact-sheet.png").exists()
    for sheet in (here / "split" / "contact-sheet.png", here / "sheet.png"):
        with Image.open(sheet) as opened:
            colours = {colour for _, colour in opened.convert("RGB").getcolors(1 << 24) or []}
        assert {(255, 0, 0), (0, 0, 255)} <= colours


# --- show


def test_show_says_what_a_device_holds(here: Path) -> None:
    split("--limit", 40, "--clients", 2, "--out", "split")
    path = "split/clients/client-000.npz"
    described = json.loads(show(path, "--json"))
    counts = json.loads((here / "split" / "partition.json").read_text())["clients"][0]["class_counts"]
    assert described == {
        "num_examples": 18,
        "num_validation_examples": 2,
        "image_size": 16,
        "class_counts": dict(zip("0123456789", counts, strict=True)),
    }
    assert "num_examples: 18\n" in show(path)


def test_help_names_every_option() -> None:
    text = run("split", "--help").output
    for option in (
        "--dataset",
        "--clients",
        "--partition",
        "--seed",
        "--limit",
        "--image-size",
        "--out",
        "--json",
    ):
        assert option in text
