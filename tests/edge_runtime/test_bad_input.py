"""What a device is given and cannot use: a named error, the remedy, a stable exit code, no state lost."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gkt_core.bundle.manifest import ENGINE_FILES, MANIFEST_NAME, PREDICT, TRAIN_STEP
from gkt_core.data.private_data import save_private_data
from gkt_core.errors import DiskFullError
from gkt_core.wire import protocol
from gkt_core.wire.protocol import RunList
from server_app.web.routes import runs
from tests.conftest import LONGEST_SECONDS, Gkt
from tests.edge_runtime.device_fixtures import GKT, Served, command, process, take_part, wait_until
from tests.killing import run_killed
from tests.server_app.server_fixtures import private_data

pytest_plugins = ["tests.server_app.server_fixtures"]


def write_data(path: Path, **changes: object) -> Path:
    """A device's file with some arrays changed."""
    save_private_data(path, private_data(1))
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive}
    np.savez(path, **{**arrays, **changes})
    return path


def truncated(bundle: Path) -> None:
    path = bundle / TRAIN_STEP
    path.write_bytes(path.read_bytes()[:-100])


def changed(bundle: Path) -> None:
    path = bundle / TRAIN_STEP
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def other_version(bundle: Path) -> None:
    values = json.loads((bundle / MANIFEST_NAME).read_text())
    values["format_version"] += 1
    (bundle / MANIFEST_NAME).write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "it is cut short or changed; export or download the bundle again"),
        (changed, "is not the file of the manifest (SHA-256): export or download it again"),
        (other_version, "export the artifacts again with the installed version"),
    ],
)
def test_a_bundle_that_is_not_what_it_was(
    gkt: Gkt, server_bundle: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    bundle, data = tmp_path / "bundle", write_data(tmp_path / "client-a.npz")
    shutil.copytree(server_bundle, bundle)
    damage(bundle)
    done = gkt("edge", "train-alone", "--artifacts", bundle, "--data", data, "--test", data)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert message in done.stderr


def test_a_damaged_bundle_in_a_state_folder_is_downloaded_again(server_bundle: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "client-a.npz")
    take_part(Served(server_bundle, tmp_path / "r1"), data, tmp_path / "state")
    expected = (tmp_path / "state/bundle" / TRAIN_STEP).read_bytes()
    for damage in (truncated, changed):
        damage(tmp_path / "state/bundle")
        (tmp_path / "state/state.json").unlink()
        take_part(Served(server_bundle, tmp_path / damage.__name__), data, tmp_path / "state")
        assert (tmp_path / "state/bundle" / TRAIN_STEP).read_bytes() == expected


def test_a_server_of_another_protocol_version(
    server_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path / "client-a.npz")
    monkeypatch.setattr(runs, "PROTOCOL_VERSION", protocol.PROTOCOL_VERSION + 1)
    with Served(server_bundle, tmp_path / "run").listening() as served:
        arguments = command(served, data, tmp_path / "state")
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    assert f"speaks protocol version {protocol.PROTOCOL_VERSION + 1}, this one" in done.stderr
    assert "pip install --upgrade gkt-edge" in done.stderr
    assert RunList.__name__ not in done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": np.full((12, 8, 8, 3), np.nan, np.float32)},
            "images is float32, with NaN or infinity, expected uint8 (0 to 255): make the file again",
        ),
        ({"labels": np.full(12, 3)}, "labels holds 3, expected 0 to 2: mend the labels"),
        ({"labels": np.full(12, -1)}, "labels holds -1, expected 0 to 2: mend the labels"),
    ],
)
def test_images_and_labels_that_are_none(
    gkt: Gkt, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    data = write_data(tmp_path / "client-a.npz", **changes)
    done = gkt("edge", "run", "--server", "http://127.0.0.1:9", "--token", "t", "--data", data,
               "--state-dir", tmp_path / "state")  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("words", [("classify", "data.npz"), ("evaluate", "--data", "data.npz")])
def test_a_model_that_is_not_there_yet(
    gkt: Gkt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data.npz")
    done = gkt("edge", *words, "--model", "state/model.onnx")
    assert done.returncode == 2, done.stderr
    message = "there is no state/model.onnx: gkt edge run writes model.onnx to its --state-dir in the end"
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize("words", [("classify", "photo.png"), ("evaluate", "--data", "data.npz")])
def test_a_model_that_is_another_file(
    gkt: Gkt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], server_bundle: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data.npz")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    shutil.copy(server_bundle / PREDICT, "predict.onnx")
    shutil.copytree(server_bundle, "artifacts")
    for model, kind in (
        (f"artifacts/{PREDICT}", "is a file of the bundle artifacts, which devices train with"),
        (PREDICT, "takes 'images', 'parameters', 'statistics' and gives"),
        ("artifacts", "is an artifact bundle"),
        ("data.npz", "is a device's private data, which --data takes"),
    ):
        done = gkt("edge", *words, "--model", model)
        said = " ".join(done.stderr.split())
        assert (done.returncode, "Traceback" in said) == (2, False), done.stderr
        assert f"{model} {kind}" in said and "gkt edge run writes model.onnx to its --state-dir" in said


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.system
# Werkzeug's server, which is the test's, leaves a file open where a device goes away in the middle of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("engine", [name.replace("_", "-") for name in ENGINE_FILES])
def test_a_full_disk_loses_nothing(server_bundle: Path, empty_run: Path, tmp_path: Path, engine: str) -> None:
    """The kernel refuses to write any file beyond 20 kB, as a disk with 20 kB left would."""
    data, state_dir = write_data(tmp_path / "client-a.npz"), tmp_path / "state"

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    def full(served: Served) -> None:
        done = subprocess.run(
            command(served, data, state_dir, "--engine", engine),
            capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS, preexec_fn=no_room,
        )  # fmt: skip
        assert done.returncode == DiskFullError.exit_code == 8, done.stderr
        assert "free some space or raise the limit, then give the same command again" in done.stderr
        assert "Traceback" not in done.stderr

    with Served(server_bundle, tmp_path / "run", local_epochs=40).listening() as served:
        # While the bundle is downloaded, and in the middle of a round.
        full(served)
        run_killed(
            *command(served, data, state_dir, "--engine", engine)[len(GKT) :],
            after="edge_runtime.state.state_dir:StateDir.save",
            calls=3,
            delay_seconds=0.0,
        )
        before = files_of(state_dir)
        assert json.loads(before["state.json"])["trained_round"] == 0
        full(served)
        after = files_of(state_dir)
        assert after == {name: body for name, body in before.items() if name in after}
        assert {"state.json", *(name for name in before if not name.startswith("."))} <= after.keys()
        with process(command(served, data, state_dir, "--engine", engine)) as device:
            wait_until(lambda: served.has_report, device)
        ended = files_of(state_dir)
    take_part(
        Served(server_bundle, tmp_path / "undisturbed", local_epochs=40),
        data,
        tmp_path / "whole",
        engine=engine.replace("-", "_"),
    )
    assert ended["checkpoint-000001"] == (tmp_path / "whole/checkpoint-000001").read_bytes()
