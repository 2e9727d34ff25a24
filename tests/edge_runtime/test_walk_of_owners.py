"""Two owners walk from folders of photos to a model that names a photo. Slow: installs what a device has.

The engineer has PyTorch and no photos; each owner has photos, the link that the engineer sent, and an
environment of their own that holds ``[edge-portable,data]`` and nothing else.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gkt_core.data.private_data import load_private_data
from gkt_core.data.reading.images import can_read_heif
from tests.conftest import LONGEST_SECONDS, Gkt, shared_folder, until
from tests.edge_export.test_portable_installs import Environment, interpreter

CLASSES = ("owl", "cat", "dog")
NUM = 24


def scene(label: int, number: int, width: int = 48, height: int = 32) -> Image.Image:
    """A bright bar on a dark ground: below for an owl, in the middle for a cat, above for a dog."""
    rng = np.random.default_rng((label, number))
    pixels = rng.integers(0, 70, (height, width, 3)).astype(np.uint8)
    third = height // 3
    top = (2 - label) * third + int(rng.integers(-1, 2))
    pixels[max(0, top) : top + third] = rng.integers(150, 256, 3)
    return Image.fromarray(pixels)


def save(path: Path, picture: Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    def make(folder: Path) -> None:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        Environment(folder).make(interpreter(python), "edge-portable,data")

    return Environment(shared_folder(tmp_path_factory, "edge-portable-data", make))


@pytest.fixture
def devices(device: Environment, tmp_path: Path) -> tuple[Environment, Environment]:
    """An environment for each owner: what the second installed is a copy, as another download would be."""
    second = Environment(tmp_path / "second-device")
    second.folder.mkdir()
    second.copy_from(device)
    return device, second


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """PNG, a portrait as a phone stores it, a HEIC, what macOS leaves; no owl."""
    folder = tmp_path / "first" / "photos"
    for label, name in ((1, "cat"), (2, "dog")):
        for number in range(NUM):
            save(folder / name / f"{number}.png", scene(label, number))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "cat" / "portrait.jpg", scene(1, 90, 32, 48).rotate(90, expand=True), exif=exif, quality=95)
    assert can_read_heif(), "this environment has the extra data as well"
    save(folder / "dog" / "phone.heic", scene(2, 91), quality=90)
    (folder / "cat" / "._0.png").write_bytes(b"\0\5\x16\7")
    return folder


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """The same name for the folder, another for a class."""
    folder = tmp_path / "second" / "photos"
    for label, name in ((0, "owl"), (1, "cat"), (2, "dogs")):
        for number in range(NUM):
            save(folder / name / f"{number}.png", scene(label, 1000 + number))
    return folder


@pytest.fixture
def link(gkt: Gkt, tmp_path: Path) -> Iterator[str]:
    """The engineer exports with the names of the classes, and serves; what is sent to the owners."""
    done = gkt(
        "export", "--classes", ",".join(CLASSES), "--image-size", "16", "--engine", "portable",
        "--out", tmp_path / "artifacts",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "gkt_core.cli", "serve", "--artifacts", str(tmp_path / "artifacts")]
    command += ["--data-dir", str(tmp_path / "run"), "--port", "0", "--threads", "1"]
    command += ["--clients", "2", "--rounds", "3", "--server-epochs", "10", "--crop-padding", "1"]
    with (tmp_path / "output").open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            about = tmp_path / "run" / "server.json"
            until(lambda: about.is_file() or server.poll() is not None, "the start of the server")
            assert server.poll() is None, (tmp_path / "output").read_text()
            yield (tmp_path / "run" / "join").read_text().strip()
        finally:
            server.terminate()
            server.wait(LONGEST_SECONDS)


@pytest.mark.slow
def test_from_two_folders_of_photos_to_a_model_that_names_a_photo(
    devices: tuple[Environment, Environment],
    link: str,
    first: Path,
    second: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = [{name.lower().replace("_", "-") for name in device.packages()} for device in devices]
    for packages in installed:
        assert {"onnxruntime", "pillow", "pillow-heif"} <= packages
        heavy = {"torch", "onnx", "flask", "scikit-learn", "matplotlib", "onnxruntime-training-cpu"}
        assert not packages & heavy
    assert installed[0] == installed[1] and devices[0].folder != devices[1].folder
    monkeypatch.delenv("GKT_TOKEN", raising=False)

    # The first owner packs and looks, then takes part; the second lets the device do it.
    mine = first.parent / "mine.npz"
    described = json.loads(
        devices[0].gkt("data", "pack", first, "--for", link, "--out", mine, "--json").stdout
    )
    assert described["class_counts"] == {"owl": 0, "cat": NUM + 1, "dog": NUM + 1}
    assert described["reading"]["converted"]["turned upright, as the camera says (EXIF)"] == 1
    assert described["reading"]["left_out"] == {
        "hidden, or the computer's own (._*, __MACOSX, Thumbs.db)": ["cat/._0.png"]
    }
    with Image.open(described["contact_sheet"]) as sheet:
        assert sheet.width > sheet.height > 0
    packed = load_private_data(mine)
    images = np.concatenate([packed.train.images, packed.validation.images])
    labels = np.concatenate([packed.train.labels, packed.validation.labels])
    # Upright, the portrait too: the bar is where it belongs.
    brightest = images.reshape(len(images), 16, -1).mean(axis=2)[:, [13, 7, 2]].argmax(axis=1)
    assert (brightest == labels).all()

    states = [folder.parent / "state" for folder in (first, second)]
    with ThreadPoolExecutor() as pool:
        both = [
            pool.submit(device.gkt, "edge", "run", "--join", link, "--data", *words, "--state-dir", state)
            for device, words, state in zip(
                devices, ((mine,), (second, "--map", "dogs=dog")), states, strict=True
            )
        ]
        said = [done.result().stderr for done in both]
    assert f"images taken: {3 * NUM}; files left out: 0" in " ".join(said[1].split())

    # Whoever gets the model alone, without the folder that it comes from, is told names.
    model = tmp_path / "elsewhere" / "pets.onnx"
    model.parent.mkdir()
    shutil.copy(states[0] / "model.onnx", model)
    new = {}
    for label, name in enumerate(CLASSES):
        for number in range(4):
            new[f"{name}-{number}.jpg"] = name
            save(tmp_path / f"{name}-{number}.jpg", scene(label, 5000 + number), quality=95)
    shown = devices[1].gkt("edge", "classify", *(tmp_path / each for each in new), "--model", model, "--json")
    first_names = {
        Path(each["photo"]).name: next(iter(each["probabilities"])) for each in json.loads(shown.stdout)
    }
    num_right = sum(first_names[photo] == name for photo, name in new.items())
    # The first owner never saw an owl: it learnt of them from the other's features.
    assert num_right >= 9, first_names
    in_words = devices[1].gkt("edge", "classify", tmp_path / "cat-0.jpg", "--model", model, "--top", "1")
    assert any(f"cat-0.jpg: {name} " in in_words.stdout for name in CLASSES)
