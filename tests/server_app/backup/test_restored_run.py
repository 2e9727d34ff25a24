"""A real run that is backed up in the middle of a round, lost, and restored: the same bytes in the end."""

from __future__ import annotations

import json
import shutil
import signal
import stat
from pathlib import Path

import onnx
import psutil
import pytest

from server_app import open_run
from server_app.run_folder import SERVER_WEIGHTS_BLOB
from tests.conftest import Gkt, free_port
from tests.server_app.served import (
    SMALL,
    DeviceProcess,
    FinishedSmall,
    Serve,
    SmallFederation,
    StartServer,
    is_gone,
)
from tests.server_app.store.conftest import Bucket
from tests.server_app.waiting import until

TWO = ("--clients", "2", "--rounds", "2", "--poll-seconds", "0.1", *SMALL)
FIRST, SECOND = "client-000", "client-001"


def in_mid_round(server: Serve, small: SmallFederation, folder: Path, gkt: Gkt) -> DeviceProcess:
    """Leave round 1 with one part that is there, of a device that waits, and one that is missing."""
    place = ("--data-dir", server.data_dir)
    one = server.device(small.data(0), folder / "device-0")
    until(lambda: server.status().clients, "the first device joins")
    assert gkt("runs", "pause", *place).returncode == 0
    two = server.device(small.data(1), folder / "device-1")
    until(lambda: len(server.status().clients) == 2, "the second device joins")
    two.process.kill()
    two.process.wait()
    assert gkt("runs", "resume", *place).returncode == 0
    until(lambda: server.status().reported == [FIRST], "the report of the first device")
    return one


def trained_round(state_dir: Path) -> int:
    path = state_dir / "state.json"
    return int(json.loads(path.read_text())["trained_round"]) if path.exists() else 0


def lost(server: Serve) -> None:
    """Kill server and trainer, and remove the run's folder."""
    trainer: psutil.Process = server.trainer()
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    trainer.kill()
    until(lambda: is_gone(trainer), "the trainer's end")
    shutil.rmtree(server.data_dir)


def without_identity(state_dir: Path) -> bytes:
    """The model of a device but for what it is called, which names its run."""
    model = onnx.load(state_dir / "model.onnx")
    del model.metadata_props[:]
    return bytes(model.SerializeToString())


def same_bytes(data_dir: Path, folder: Path, undisturbed: FinishedSmall) -> None:
    run = open_run(data_dir)
    weights = run.blobs.local_path(SERVER_WEIGHTS_BLOB).read_bytes()
    run.store.close()
    assert weights == (undisturbed.run / "blobs" / SERVER_WEIGHTS_BLOB).read_bytes()
    for name in ("device-0", "device-1"):
        assert without_identity(folder / name) == without_identity(undisturbed.folder / name)


@pytest.mark.system
def test_devices_come_back_to_the_round_of_the_backup(
    serve: StartServer, small: SmallFederation, finished_small: FinishedSmall, tmp_path: Path, gkt: Gkt
) -> None:
    """The server is back where it was, on its port: devices that are up ask it what to do."""
    port, archive = free_port(), tmp_path / "backup.tar.zst"
    first = serve("--artifacts", small.bundle, *TWO, "--port", port)
    one = in_mid_round(first, small, tmp_path, gkt)
    taken = gkt("backup", "--data-dir", first.data_dir, "--out", archive, "--json")
    assert taken.returncode == 0, taken.stderr
    told = json.loads(taken.stdout)
    assert (told["phase"], told["round_num"]) == ("collecting", 1)
    assert {"operator_secret", "join"} <= set(told["secrets"])
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    # The run goes on, into the next round.
    two = first.device(small.data(1), tmp_path / "device-1")
    until(lambda: trained_round(tmp_path / "device-1") == 2, "its second round")
    lost(first)

    restored = gkt("restore", archive, "--data-dir", first.data_dir)
    assert restored.returncode == 0, restored.stderr
    assert "collecting in round 1 of 2, with 2 devices" in restored.stdout
    second = serve("--port", port)
    for number, device in enumerate((one, two)):
        assert device.ended() == 0, device.log.read_text()
        if second.status().phase != "finished":
            # It had come to the end before the server was killed: its owner starts it again.
            second.device(small.data(number), tmp_path / f"device-{number}")
    for process in second.devices:
        assert process.wait() == 0
    assert "from a backup: going back after round 0, with the weights of then" in two.log.read_text()
    same_bytes(second.data_dir, tmp_path, finished_small)
    state = open_run(second.data_dir)
    assert "restored from a backup of" in state.store.state().history[-1].text
    state.store.close()


@pytest.mark.system
@pytest.mark.parametrize("form", ["backup.tar.zst", "a folder"])
def test_a_run_in_postgresql_and_a_bucket_is_restored_into_others(
    form: str,
    serve: StartServer,
    small: SmallFederation,
    finished_small: FinishedSmall,
    tmp_path: Path,
    postgres_url: str,
    bucket: Bucket,
    gkt: Gkt,
) -> None:
    """The run has ended when it is lost; devices come back from beyond its end."""
    archive, elsewhere = tmp_path / form, ("--database", postgres_url, "--blobs", bucket.url)
    first = serve("--artifacts", small.bundle, *TWO, *elsewhere)
    one = in_mid_round(first, small, tmp_path, gkt)
    taken = gkt("backup", "--data-dir", first.data_dir, "--out", archive)
    assert taken.returncode == 0, taken.stderr
    assert "it holds secrets (operator_secret, join" in taken.stdout
    two = first.device(small.data(1), tmp_path / "device-1")
    for device in (one, two):
        assert device.ended() == 0, device.log.read_text()
    lost(first)

    # Where the run is still, nothing is touched.
    place = ("restore", archive, "--data-dir", first.data_dir)
    again = gkt(*place, "--database", postgres_url)
    assert again.returncode == 2 and "holds run-" in again.stderr and "already" in again.stderr, again.stderr
    again = gkt(*place, "--blobs", bucket.url)
    assert again.returncode == 2 and "name another bucket" in again.stderr, again.stderr
    assert not first.data_dir.exists()
    # A backup says nothing of where the run was, and goes into any kind of storage.
    others = ("--blobs", "s3://gkt-tests/others") if form == "a folder" else ()
    restored = gkt(*place, *others, "--json")
    assert restored.returncode == 0, restored.stderr
    assert json.loads(restored.stdout)["round_num"] == 1
    second = serve()
    for number in (0, 1):
        device = second.device(small.data(number), tmp_path / f"device-{number}")
    for process in second.devices:
        assert process.wait() == 0
    assert "going back after round 0, with the weights of then" in device.log.read_text()
    same_bytes(second.data_dir, tmp_path, finished_small)
