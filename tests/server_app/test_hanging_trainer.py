"""Trainers that hang or are left behind, with real processes and signals: ended, replaced, and told of."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server_app.heartbeat import ALIVE_NAME, read_beat
from tests.server_app.served import SMALL, Serve, SmallFederation, StartServer, is_gone
from tests.server_app.waiting import until


@contextlib.contextmanager
def in_a_transaction(server: Serve) -> Iterator[None]:
    """Hold the database as a trainer does that was stopped while it wrote; if it was, it is held already."""
    with contextlib.closing(
        sqlite3.connect(server.data_dir / "run.sqlite", isolation_level=None)
    ) as database:
        with contextlib.suppress(sqlite3.OperationalError):
            database.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.system
def test_a_trainer_that_hangs_is_killed_and_the_run_goes_on(
    serve: StartServer, small: SmallFederation, tmp_path: Path
) -> None:
    options = ("--clients", "1", "--rounds", "1", "--trainer-silence", "5", *SMALL)
    server = serve("--artifacts", small.bundle, *options)
    hanging = server.trainer()
    alive = server.data_dir / ALIVE_NAME
    until(lambda: (beat := read_beat(alive)) and beat.what == "waiting for devices", "a trainer that waits")
    assert server.get("/v1/health").json() == {"status": "ok"}
    os.kill(hanging.pid, signal.SIGSTOP)
    until(lambda: hanging.status() == psutil.STATUS_STOPPED, "the signal reaches it")
    with in_a_transaction(server):
        until(lambda: is_gone(hanging), "its end")
    device = server.device(small.data(0), tmp_path / "a")
    said = server.wait_for(server.err, "the trainer hangs: silent for ")
    assert "while waiting for devices" in said and "it is killed and started again" in said
    assert device.ended() == 0, device.log.read_text()
    assert server.status().phase == "finished"
    assert any(each.kind == "trainer" and "hangs" in each.text for each in server.status().history)
    assert server.get("/v1/health").status_code == 200


@pytest.mark.system
def test_an_orphan_that_hangs_is_ended_by_the_next_trainer(
    serve: StartServer, small: SmallFederation, tmp_path: Path
) -> None:
    options = ("--clients", "1", "--rounds", "1", *SMALL)
    first = serve("--artifacts", small.bundle, *options)
    orphan = first.trainer()
    until((first.data_dir / "trainer.alive").is_file, "the trainer's first sign of life")
    os.kill(orphan.pid, signal.SIGSTOP)
    until(lambda: orphan.status() == psutil.STATUS_STOPPED, "the signal reaches it")
    assert first.end(signal.SIGKILL) == -signal.SIGKILL

    with in_a_transaction(first):
        second = serve()
        until(lambda: is_gone(orphan), "the end of the orphan")
    log = second.data_dir / "trainer.log"
    second.wait_for(log, f"process {orphan.pid} holds trainer.lock")
    second.wait_for(log, "whose server is gone and which did not end by itself: it is killed")
    device = second.device(small.data(0), tmp_path / "a")
    assert device.ended() == 0, device.log.read_text()
    (killed,) = (each.text for each in second.status().history if "it is killed" in each.text)
    assert f"process {orphan.pid}" in killed
