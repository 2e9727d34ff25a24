"""A disk that is full, or nearly: devices wait and say so, and no command ends in a traceback.

A real disk of some megabytes, real servers, devices and commands.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import LONGEST_SECONDS
from tests.server_app.served import SMALL, FinishedSmall, Serve, SmallFederation
from tests.server_app.waiting import until

DISK_BYTES, RESERVE_MB = 64 << 20, 24
WEIGHTS = "blobs/model/server.safetensors"


class Disk:
    """A disk that somebody else fills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, leaves_bytes: int = 0) -> None:
        """Leave so much, or nothing at all."""
        status = os.statvfs(self.folder)
        with (self.folder / "filler").open("ab", buffering=0) as stream, contextlib.suppress(OSError):
            stream.write(bytes(status.f_bavail * status.f_frsize - leaves_bytes))
            while not leaves_bytes:
                stream.write(bytes(4096))

    def empty(self) -> None:
        (self.folder / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here (not root?): the tests of a full disk did NOT run")
    yield Disk(folder)
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def server(disk: Disk, small: SmallFederation, tmp_path: Path) -> Iterator[Serve]:
    options = ("--artifacts", small.bundle, "--clients", "2", "--rounds", "2", *SMALL)
    started = Serve(tmp_path / "process", disk.folder / "run", *options, "--reserve-disk", RESERVE_MB)
    yield started
    started.abandon()


def gkt(*words: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "gkt_core.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.system
def test_devices_wait_while_the_disk_is_nearly_full(
    disk: Disk, server: Serve, small: SmallFederation, finished_small: FinishedSmall, tmp_path: Path
) -> None:
    until(lambda: server.status().trainer_idle_seconds < 1e6, "the trainer's first sign of life")
    disk.fill(leaves_bytes=16 << 20)
    devices = [server.device(small.data(number), tmp_path / f"device-{number}") for number in (0, 1)]
    for device in devices:
        server.wait_for(device.log, "no room for uploads")
    answer = server.get("/v1/health")
    assert answer.status_code == 503 and "no room for uploads" in answer.json()["message"]
    assert server.status().phase == "collecting"
    listed = gkt("clients", "list", "--data-dir", server.data_dir)
    assert listed.returncode == 0 and listed.stdout.count("training") == 2, listed
    rotated = gkt("clients", "rotate", "client-000", "--data-dir", server.data_dir)
    assert rotated.returncode == 0, rotated
    assert not list((server.data_dir / "blobs").rglob("*.safetensors"))
    disk.empty()
    for device in devices:
        assert device.ended() == 0, device.log.read_text()
    assert (server.data_dir / WEIGHTS).read_bytes() == (finished_small.run / WEIGHTS).read_bytes()
    assert server.get("/v1/health").status_code == 200


@pytest.mark.system
def test_no_command_ends_in_a_traceback_on_a_disk_that_is_full(
    disk: Disk, server: Serve, small: SmallFederation, tmp_path: Path
) -> None:
    device = server.device(small.data(0), tmp_path / "device-0")
    until(lambda: server.status().clients, "the device joins")
    disk.fill()
    folder = ("--data-dir", server.data_dir)
    assert gkt("clients", "list", *folder).returncode == 0
    for words in (("revoke", "client-000"), ("rotate", "client-000"), ("re-enroll", "client-000")):
        done = gkt("clients", *words, *folder)
        assert done.returncode == 8 and "the server's disk is full: free some space" in done.stderr, done
    done = gkt("enroll", *folder)
    assert done.returncode == 8 and "full" in done.stderr
    answer = server.get("/v1/health")
    assert answer.status_code == 503 and "no room for uploads" in answer.json()["message"]
    assert server.end() == 130
    assert "Traceback" not in server.err.read_text()
    # Without a server, too: SQLite wants room to be read at all.
    for command in ("clients list", "clients revoke client-000", "enroll"):
        done = gkt(*command.split(), *folder)
        assert done.returncode in (0, 8), done
        assert done.returncode == 0 or "full" in done.stderr, done
    disk.empty()
    revoked = gkt("clients", "revoke", "client-000", *folder)
    assert revoked.returncode == 0 and "is revoked" in revoked.stdout, revoked
    assert device.process.poll() is None, "it waits for its server"
