"""Two owners with photos of their own, devices without torch, a server: to a model that names a photo."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_runtime.state.packed_data import is_packed, packed_data
from gkt_core.bundle.manifest import MANIFEST_NAME, Manifest, load_bundle
from gkt_core.data.pack import PackOptions
from gkt_core.data.private_data import PrivateData, load_private_data, save_private_data
from gkt_core.errors import ArtifactError, DatasetError
from tests.conftest import LONGEST_SECONDS, until
from tests.edge_runtime.test_edge_isolated import isolated
from tests.server_app.server_fixtures import private_data

pytest_plugins = ["tests.server_app.server_fixtures"]

CLASSES = ["owl", "cat", "dog"]
TOKEN = "a-token-of-the-tests"


def photo(path: Path, label: int, number: int, **options: Any) -> None:
    """The upper third is brighter the higher the class; the rest is noise."""
    pixels = np.random.default_rng(number).integers(0, 60, (24, 16, 3)).astype(np.uint8)
    pixels[:12] = 70 + 80 * label
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if options:
        # Held upside down, as its EXIF says.
        picture = picture.rotate(180)
    picture.save(path, **options)


def folder_of(root: Path, names: dict[str, int], num: int = 10) -> Path:
    for name, label in names.items():
        for number in range(num):
            photo(root / name / f"{number}.png", label, number)
    return root


@pytest.fixture(scope="module")
def bundle(server_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle with names for its classes."""
    folder = tmp_path_factory.mktemp("named") / "artifacts"
    shutil.copytree(server_bundle, folder)
    values = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps(values | {"class_names": CLASSES}))
    return folder


@pytest.fixture
def manifest(bundle: Path) -> Manifest:
    return load_bundle(bundle, ()).manifest


def test_photos_are_packed_once_and_again_when_they_change(tmp_path: Path, manifest: Manifest) -> None:
    photos = folder_of(tmp_path / "photos", {"cat": 1, "dog": 2})
    notes: list[str] = []
    state = tmp_path / "state"
    state.mkdir()

    def again(options: PackOptions | None = None) -> PrivateData:
        notes.clear()
        return packed_data(str(photos), manifest, options or PackOptions(), state, notes.append)

    first = again()
    assert notes[0] == "images taken: 20; files left out: 0"
    assert again().train.sample_ids.tolist() == first.train.sample_ids.tolist()
    assert notes == []
    # One goes, twenty come, one gets another label: what was there keeps its id and its part.
    (photos / "cat" / "0.png").unlink()
    (photos / "cat" / "1.png").rename(photos / "dog" / "was a cat.png")
    for number in range(20):
        photo(photos / "owl" / f"{number}.png", 0, 100 + number)
    second = again()
    assert notes[:2] == [
        f"{photos}, or how it is to be packed, has changed: packed again",
        "images taken: 39; files left out: 0",
    ]
    for before, now in ((first.train, second.train), (first.validation, second.validation)):
        assert len(set(before.sample_ids.tolist()) - set(now.sample_ids.tolist())) <= 1
    assert not set(first.train.sample_ids.tolist()) & set(second.validation.sample_ids.tolist())
    assert not set(first.validation.sample_ids.tolist()) & set(second.train.sample_ids.tolist())
    assert len(second.validation) == 4, "a tenth of 39"
    # Killed before it was noted what the file was made of: packed again, under the same ids.
    (state / "packed.json").write_text("{")
    assert again().train.sample_ids.tolist() == second.train.sample_ids.tolist()
    assert "packed again" in notes[0]
    assert len(packed_data(str(photos), manifest, PackOptions(), None, notes.append).train) == 35


def test_what_needs_packing(tmp_path: Path) -> None:
    save_private_data(tmp_path / "device.npz", private_data(1))
    np.savez(tmp_path / "arrays.npz", images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.arange(4))
    assert is_packed(str(tmp_path / "device.npz"))
    assert not any(map(is_packed, (str(tmp_path / "arrays.npz"), str(tmp_path), "camera:frames")))
    (tmp_path / "damaged.npz").write_bytes(b"no")
    with pytest.raises(DatasetError, match=r"it is no \.npz file"):
        is_packed(str(tmp_path / "damaged.npz"))


def test_a_picture_or_an_archive_as_data_is_told_what_to_give(tmp_path: Path, manifest: Manifest) -> None:
    photo(tmp_path / "1.png", 1, 1)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(tmp_path / "1.png", "cat/1.png")
    for name, said in (
        ("1.png", "is one picture: give a folder"),
        ("photos.zip", "is an archive: unpack it"),
    ):
        source = str(tmp_path / name)
        assert not is_packed(source)
        with pytest.raises(DatasetError, match=f"{name} {said}"):
            packed_data(source, manifest, PackOptions(), None, print)


def test_a_bundle_without_names_cannot_take_folders(tmp_path: Path, server_bundle: Path) -> None:
    with pytest.raises(ArtifactError, match="does not name its 3 classes, so that the folders in photos"):
        packed_data("photos", load_bundle(server_bundle, ()).manifest, PackOptions(), tmp_path, print)
    with pytest.raises(ArtifactError, match=r"does not name its 3 classes, so that the labels in mine\.npz"):
        packed_data("mine.npz", load_bundle(server_bundle, ()).manifest, PackOptions(), tmp_path, print)


@pytest.fixture
def url(bundle: Path, tmp_path: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "gkt_core.cli", "serve", "--artifacts", str(bundle), "--token", TOKEN]
    command += ["--data-dir", str(tmp_path / "run"), "--port", "0", "--poll-seconds", "0.1", "--threads", "1"]
    command += ["--clients", "2", "--rounds", "1", "--server-epochs", "1", "--crop-padding", "1"]
    with (tmp_path / "output").open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            about = tmp_path / "run" / "server.json"
            until(lambda: about.is_file() or server.poll() is not None, "the start of the server")
            assert server.poll() is None, (tmp_path / "output").read_text()
            yield json.loads(about.read_text())["url"]
        finally:
            server.terminate()
            server.wait(LONGEST_SECONDS)


@pytest.mark.system
def test_two_owners_train_on_their_own_photos_to_a_model_that_names_them(tmp_path: Path, url: str) -> None:
    # Both folders have one name; the first has a portrait, a damaged file and no owl.
    first = folder_of(tmp_path / "a" / "photos", {"cat": 1, "dog": 2})
    exif = Image.Exif()
    exif[0x0112] = 3
    photo(first / "cat" / "portrait.jpg", 1, 50, exif=exif, quality=95)
    (first / "cat" / "cut.png").write_bytes((first / "cat" / "0.png").read_bytes()[:100])
    (first / "cat" / "._0.png").write_bytes(b"\0\5\x16\7")
    second = folder_of(tmp_path / "b" / "photos", {"owl": 0, "dogs": 2})
    connection = ("--server", url, "--token", TOKEN)

    # A device whose classes are others is refused before it joins, with both lists.
    save_private_data(tmp_path / "other.npz", private_data(1))
    refused = isolated(
        "edge",
        "run",
        *connection,
        "--data",
        tmp_path / "other.npz",
        "--state-dir",
        tmp_path / "c",
        cwd=tmp_path,
    )
    assert refused.returncode == 2
    assert "has other classes: ant, bee, cat; the artifact bundle has owl, cat, dog" in refused.stderr

    command = [sys.executable, "-m", "gkt_core.cli", "edge", "run", *connection, "--data", str(second)]
    command += ["--state-dir", str(tmp_path / "b" / "state"), "--map", "dogs=dog"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as other:
        done = isolated(
            "edge", "run", *connection, "--data", first, "--state-dir", tmp_path / "a" / "state", cwd=tmp_path
        )
        _, said = other.communicate(timeout=LONGEST_SECONDS)
    assert (done.returncode, other.returncode) == (0, 0), done.stderr + said
    assert "imported: [] tried: []" in done.stderr
    text = " ".join(done.stderr.split())
    assert "images taken: 21; files left out: 2" in text and "cat/cut.png" in text
    names = [
        json.loads((tmp_path / each / "state" / "device.json").read_text())["client_id"] for each in "ab"
    ]
    assert len(set(names)) == 2 and all(name.startswith("photos-") for name in names)
    packed = load_private_data(tmp_path / "a" / "state" / "packed.npz")
    images = np.concatenate([packed.train.images, packed.validation.images])
    assert (images[:, 0].mean(axis=(1, 2)) > images[:, -1].mean(axis=(1, 2)) + 50).all(), (
        "one lies upside down"
    )

    model = tmp_path / "a" / "state" / "model.onnx"
    seen = isolated(
        "edge", "classify", first / "cat" / "portrait.jpg", first / "dog" / "0.png",
        "--model", model, "--json", cwd=tmp_path,
    )  # fmt: skip
    assert seen.returncode == 0, seen.stderr
    assert "imported: [] tried: []" in seen.stderr
    for each in json.loads(seen.stdout):
        values = list(each["probabilities"].values())
        assert sorted(each["probabilities"]) == sorted(CLASSES)
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1)
    shown = isolated(
        "edge", "classify", first / "dog" / "0.png", "--model", model, "--top", "1", cwd=tmp_path
    )
    assert any(f"0.png: {name} 0." in shown.stdout for name in CLASSES)
    for arguments, words in (
        ((first / "cat" / "cut.png",), "cut.png: damaged or cut short"),
        ((first / "cat" / "gone.png",), "gone.png: there is no such file"),
        ((first / "cat",), "cat: a folder: give the photos in it"),
        ((first / "cat" / "0.png", "--for", tmp_path), "manifest.json cannot be read"),
    ):
        wrong = isolated("edge", "classify", *arguments, "--model", model, cwd=tmp_path)
        assert wrong.returncode == 2 and words in wrong.stderr

    # One that is bad takes nothing from the others.
    mixed = first / "cat" / "cut.png", first / "dog" / "0.png", first / "gone.png", first / "cat" / "0.png"
    for as_json in ((), ("--json",)):
        some = isolated("edge", "classify", *mixed, "--model", model, *as_json, cwd=tmp_path)
        assert some.returncode == 2 and "Traceback" not in some.stderr
        assert "cannot read 2 of 4 photos: " in some.stderr
        assert all(words in some.stderr for words in ("cut.png: damaged", "gone.png: there is no such file"))
        if as_json:
            assert [each["photo"] for each in json.loads(some.stdout)] == [str(mixed[1]), str(mixed[3])]
        else:
            lines = some.stdout.splitlines()
            assert [line.split(": ")[0] for line in lines] == [str(mixed[1]), str(mixed[3])]

    # Images that were trained on are not called test images.
    measured = isolated(
        "edge", "evaluate", "--model", model, "--data", tmp_path / "a" / "state" / "packed.npz", cwd=tmp_path
    )
    assert f"of {len(packed.validation)} validation images right" in measured.stdout
