"""A device's engine and folder, each really wrong."""

from __future__ import annotations

import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from edge_runtime.doctor.device import engine, state_folder
from edge_runtime.state.credential import KeptCredential, keep_credential
from gkt_core.bundle.bundle_files import describe_files
from gkt_core.bundle.manifest import TRAIN_STEP, load_bundle, write_manifest
from gkt_core.doctor.findings import ADVICE, FINE, WRONG
from gkt_core.errors import ArtifactError, InputError, MissingExtraError
from tests.gkt_core.doctor.looking import looked, states, the_one

pytest_plugins = ["tests.server_app.server_fixtures"]
Usage = namedtuple("Usage", ["total", "used", "free"])


def test_an_engine_opens_a_bundle(server_bundle: Path) -> None:
    here, opened = looked(engine, artifacts=server_bundle)
    assert here.text == "runs here: portable and ort-training"
    assert opened.text == f"portable opens {server_bundle}"


def test_a_graph_that_no_engine_opens(server_bundle: Path, tmp_path: Path) -> None:
    """Whole by its hashes, and no graph."""
    artifacts = Path(shutil.copytree(server_bundle, tmp_path / "artifacts"))
    (artifacts / TRAIN_STEP).write_bytes(b"no graph")
    manifest = load_bundle(artifacts, ()).manifest
    manifest.files.update(describe_files(artifacts, [TRAIN_STEP]))
    write_manifest(artifacts, manifest)
    with pytest.raises(ArtifactError, match=TRAIN_STEP):
        looked(engine, artifacts=artifacts)


def test_a_device_without_onnx_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [each for each in sys.path if "site-packages" not in each])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    # A server has none, and needs none.
    assert looked(engine) == []
    with pytest.raises(MissingExtraError, match=r"gkt-edge\[edge\]"):
        looked(engine, state_dir=tmp_path)


def member(folder: Path) -> Path:
    keep_credential(folder, KeptCredential("http://127.0.0.1:1", "1" * 16, "s" * 43, "0" * 64))
    return folder


def test_a_folder_that_is_fine(tmp_path: Path) -> None:
    assert states(looked(state_folder, state_dir=member(tmp_path))) == [FINE]
    assert states(looked(state_folder, state_dir=tmp_path / "not-yet")) == [FINE]
    assert looked(state_folder) == []


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests fill no disk: this is what one says that is full.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 10**6, 10**6))
    said = the_one(looked(state_folder, state_dir=member(tmp_path)), WRONG)
    assert said.text == f"1 MB are free for {tmp_path}, a device takes 50"


def test_a_secret_that_others_read(tmp_path: Path) -> None:
    (member(tmp_path) / "credential.json").chmod(0o644)
    said = the_one(looked(state_folder, state_dir=tmp_path), WRONG)
    assert said.remedy == f"chmod 600 {tmp_path / 'credential.json'}"


def test_a_folder_of_no_run_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "device.json").touch()
    assert "belongs to no run yet" in the_one(looked(state_folder, state_dir=tmp_path), ADVICE).text
    with pytest.raises(InputError, match="expected a folder: choose another --state-dir"):
        looked(state_folder, state_dir=tmp_path / "device.json")
