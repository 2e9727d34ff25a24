"""Devices that are killed, and state folders that are lost, damaged or another's."""

import contextlib
import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.device import DeviceResult
from edge_runtime.server_client import ServerClient
from edge_runtime.state import state_dir
from edge_runtime.state.past_rounds import PastRounds
from edge_runtime.state.state_dir import DeviceState, StateDir
from gkt_core.errors import ArtifactError, DatasetError, GKTError, InputError, ProtocolError, RunFailedError
from gkt_core.files import write_atomically
from gkt_core.rounds.client_round import LocalProgress
from gkt_core.wire.protocol import Task
from server_app import create_run
from server_app.rounds.state import Failed, Joined
from tests.server_app.server_fixtures import CLIENTS, TOKEN, run_config
from tests.server_app.trainer.whole_run import DATA, FinishedRun, Killed, RunOfTwo

MOMENTS = (
    ("before", r"PUT .*/clients/client-a"),
    ("before", r"PUT .*/rounds/1/.*/report"),
    ("after", r"PUT .*/rounds/1/.*/report"),
    ("before", r"GET .*/rounds/1/.*/soft-labels"),
    ("before", r"PUT .*/rounds/2/.*/shards/train/0"),
    ("after", r"PUT .*/rounds/2/.*/shards/train/1"),
    ("before", r"GET .*/model/template"),
)


def test_a_device_that_dies_again_and_again(
    undisturbed: FinishedRun, copied: RunOfTwo, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(MOMENTS)

    def cut(when: str, call: str) -> None:
        for moment in left:
            if moment[0] == when and re.fullmatch(moment[1], call):
                left.remove(moment)
                raise Killed(call)

    # Once also between the weights of round 2 and the note that they are there.
    not_yet = [True]

    def write(path: Path, data: bytes, *, mode: int = 0o666) -> None:
        if path.name == "state.json" and path.parent.name == "client-a" and b'"trained_round": 2' in data:
            while not_yet:
                not_yet.clear()
                raise Killed(path.name)
        write_atomically(path, data, mode=mode)

    monkeypatch.setattr(state_dir, "write_atomically", write)
    deaths = []

    def device() -> DeviceResult:
        while True:
            try:
                return copied.device("client-a", cut)
            except Killed as death:
                deaths.append(death)

    copied.together(device, lambda: copied.device("client-b"))
    assert left == [] and len(deaths) == len(MOMENTS) + 1
    assert copied.outcome() == undisturbed.of.outcome()
    assert copied.models() == undisturbed.of.models()
    sent = [each.path for each in copied.exchanges["client-a"] if "/shards/" in each.path]
    assert len(sent) == len(set(sent)), "no shard was sent twice"
    for round_num in (1, 2):
        reports = copied.run.store.reports(round_num), undisturbed.of.run.store.reports(round_num)
        for client_id in CLIENTS:
            mine, theirs = (found[client_id] for found in reports)
            assert (mine.loss, mine.accuracy) == (theirs.loss, theirs.accuracy)
            assert mine.train_seconds > 0 and mine.images_per_second > 0


# --- folders that belong to something else


def again_of(undisturbed: FinishedRun, devices_folder: Path) -> RunOfTwo:
    """A copy of the finished run, for other devices' folders: what they take is counted in the copy."""
    folder = devices_folder.with_name("run-again")
    shutil.copytree(undisturbed.of.run.folder, folder)
    return RunOfTwo(folder, devices_folder)


@pytest.fixture
def folder_of_round_2(undisturbed: FinishedRun, tmp_path: Path) -> Path:
    """A copy of the state folder that client-a ended with."""
    shutil.copytree(undisturbed.of.devices / "client-a", tmp_path / "devices" / "client-a")
    return tmp_path / "devices" / "client-a"


def test_a_state_folder_of_another_run_is_refused(
    folder_of_round_2: Path, server_bundle: Path, tmp_path: Path
) -> None:
    create_run(tmp_path / "run", server_bundle, run_config(), TOKEN).store.close()
    other = RunOfTwo(tmp_path / "run", folder_of_round_2.parent)
    with pytest.raises(ArtifactError, match=r"belongs to client-a in run-.*choose another --state-dir"):
        other.device("client-a")
    assert other.run.store.state().clients == ()
    other.run.store.close()


def test_a_state_folder_of_another_device_is_refused(
    folder_of_round_2: Path, undisturbed: FinishedRun
) -> None:
    folder_of_round_2.rename(folder_of_round_2.with_name("client-b"))
    undisturbed_again = again_of(undisturbed, folder_of_round_2.parent)
    with pytest.raises(ArtifactError, match=r"belongs to client-a in .*not to client-b"):
        undisturbed_again.device("client-b")
    undisturbed_again.run.store.close()


def test_a_lost_state_folder_is_no_trained_device(undisturbed: FinishedRun, tmp_path: Path) -> None:
    """A new folder holds fresh weights: no model must be made of them."""
    again = again_of(undisturbed, tmp_path / "devices")
    with pytest.raises(RunFailedError, match="before this device had taken part in a round"):
        again.device("client-a")
    assert not (tmp_path / "devices" / "client-a" / "model.onnx").exists()
    again.run.store.close()


def test_a_device_may_take_its_model_again(undisturbed: FinishedRun, folder_of_round_2: Path) -> None:
    (folder_of_round_2 / "model.onnx").unlink()
    again = again_of(undisturbed, folder_of_round_2.parent)
    result = again.device("client-a")
    again.run.store.close()
    assert result.rounds == 2
    assert (folder_of_round_2 / "model.onnx").read_bytes() == undisturbed.of.models()[0]


def test_weights_that_are_gone_or_cut_short_are_refused(
    folder_of_round_2: Path, undisturbed: FinishedRun
) -> None:
    again = again_of(undisturbed, folder_of_round_2.parent)
    weights = folder_of_round_2 / "checkpoint-000002"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArtifactError):
        again.device("client-a")
    weights.unlink()
    with pytest.raises(ArtifactError):
        again.device("client-a")
    again.run.store.close()


def test_a_damaged_bundle_is_downloaded_again(folder_of_round_2: Path, undisturbed: FinishedRun) -> None:
    again = again_of(undisturbed, folder_of_round_2.parent)
    (folder_of_round_2 / "bundle" / "predict.onnx").write_bytes(b"damaged")
    again.device("client-a")
    taken = [each.path for each in again.exchanges["client-a"] if "/artifacts/" in each.path]
    again.run.store.close()
    assert [path.rsplit("/", 1)[1] for path in taken] == ["predict.onnx"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"run_id": "run-1"}',
        b'{"run_id": 1, "client_id": "client-a"}',
        b'{"run_id": "run-1", "client_id": "client-a", "trained_round": "2"}',
        b'{"run_id": "run-1", "client_id": "client-a", "trained_round": -1}',
    ],
)
def test_a_state_file_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    unreadable = pytest.raises(ArtifactError, match=r"state\.json cannot be read")
    with contextlib.closing(StateDir(tmp_path)) as folder, unreadable:
        folder.state("run-1", "client-a")


def test_a_state_folder_is_one_devices_at_a_time(tmp_path: Path) -> None:
    first = StateDir(tmp_path / "device")
    with pytest.raises(InputError, match=r"another gkt edge run uses .*--state-dir"):
        StateDir(tmp_path / "device")
    first.close()
    StateDir(tmp_path / "device").close()


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "device"):
        with pytest.raises(InputError, match="cannot use the state folder"):
            StateDir(path)


def test_a_state_is_kept_with_its_weights_and_older_ones_go(tmp_path: Path) -> None:
    def write_weights(path: Path) -> None:
        path.write_bytes(b"weights")

    folder = StateDir(tmp_path)
    folder.past = PastRounds(tmp_path, most_bytes=15)
    assert folder.state("run-1", "client-a") == DeviceState("run-1", "client-a", 0)
    for round_num in (1, 2, 3, 4):
        begun = DeviceState("run-1", "client-a", round_num - 1, partial=LocalProgress(3))
        folder.save(begun, write_weights)
        state = DeviceState("run-1", "client-a", round_num)
        folder.save(state, write_weights)
        assert folder.state("run-1", "client-a") == state
    # Of rounds before, as many as there is room for: a server may come back from a backup.
    assert sorted(path.name for path in tmp_path.glob("checkpoint*")) == [
        f"checkpoint-00000{number}" for number in (2, 3, 4)
    ]
    folder.close()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"class_names": ("ant", "bee")}, ArtifactError),
        ({"train": "16 px"}, DatasetError),
        ({"validation": "none"}, DatasetError),
    ],
)
def test_data_that_does_not_fit_never_joins(
    copied: RunOfTwo, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], error: type[GKTError]
) -> None:
    data = DATA["client-a"]
    if "train" in changes:
        changes = {"train": dataclasses.replace(data.train, images=np.zeros((12, 16, 16, 3), np.uint8))}
    if "validation" in changes:
        empty = {name: getattr(data.validation, name)[:0] for name in ("images", "labels", "sample_ids")}
        changes = {"validation": type(data.validation)(**empty)}
    monkeypatch.setitem(DATA, "client-a", dataclasses.replace(data, **changes))
    with pytest.raises(error):
        copied.device("client-a")
    assert copied.run.store.state().clients == ()


def test_a_task_that_this_version_does_not_know(copied: RunOfTwo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerClient, "join", lambda *_: Task("dance", 1, 0, 0.0, "why not"))
    with pytest.raises(ProtocolError, match="unknown task 'dance'"):
        copied.device("client-a")


def test_a_device_of_a_failed_run_says_why(copied: RunOfTwo) -> None:
    copied.run.store.apply(Joined("client-a"))
    copied.run.store.apply(Failed("disk full"))
    with pytest.raises(RunFailedError, match="the server stopped the run: disk full"):
        copied.device("client-a")
