"""Decide who may train: one process of a folder, by a lock, and one folder of a run, by a lease.

A trainer that was killed leaves its lock at once, and a new one on the same folder takes the lease over as
its own. One on another machine waits until the lease has run out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from gkt_core.files import try_to_lock
from server_app.heartbeat import ALIVE_NAME, Heartbeat, read_beat
from server_app.rounds.history import TRAINER
from server_app.rounds.state import Noted
from server_app.run_folder import TRAINER_LOCK_NAME, open_run
from server_app.storage_errors import STORAGE_ERRORS
from server_app.store import RunStore

log = logging.getLogger("gkt.trainer")

LEASE_SECONDS = 60.0
# A trainer that is left behind ends by itself before that, unless it is stuck.
ORPHAN_SECONDS = 15.0
_POLL_SECONDS = 0.1


class LeaseLost(Exception):
    """Raised when another trainer has this run: what this one computed must not be published."""


class Lease:
    """The right to train a run.

    Args:
        store: Where it is noted.
        folder: The run's folder; with this machine's name, who holds the lease.
        seconds: After so long without a sign of life, another machine's trainer may take it.
    """

    def __init__(self, store: RunStore, folder: Path, seconds: float = LEASE_SECONDS) -> None:
        self._store, self._seconds = store, seconds
        self.owner = f"{socket.gethostname()}:{folder.resolve()}"
        self._renewed_at = -float("inf")

    def take(self) -> bool:
        """Take the lease if nobody else has it, and say whether it is ours."""
        taken = self._store.take_lease(self.owner, self._seconds)
        self._renewed_at = time.monotonic() if taken else -float("inf")
        return taken

    def keep(self) -> None:
        """Renew the lease, at most every sixth part of its time.

        Raises:
            LeaseLost: It ran out, and another trainer has it.
        """
        if time.monotonic() - self._renewed_at < self._seconds / 6:
            return
        if not self.take():
            raise LeaseLost

    def release(self) -> None:
        """Give the lease back."""
        self._store.release_lease(self.owner)


@contextlib.contextmanager
def only_trainer(folder: Path, parent_pid: int | None, heartbeat: Heartbeat | None = None) -> Iterator[bool]:
    """Wait until no other process trains this run, such as one whose server was just killed.

    One whose server is gone and which does not end by itself is killed.

    Args:
        folder: The run's folder.
        parent_pid: Wait no longer than this process is our parent.
        heartbeat: Told that this process waits.

    Yields:
        Whether this process is the one now.
    """
    holder = _Holder(folder)
    while (lock := try_to_lock(folder / TRAINER_LOCK_NAME)) is None:
        if parent_pid is not None and os.getppid() != parent_pid:
            yield False
            return
        if heartbeat is not None:
            heartbeat.waits("waiting for another trainer to end")
        holder.look()
        time.sleep(_POLL_SECONDS)
    with lock:
        yield True


class _Holder:
    """The process that holds a run's lock, as one that waits for it sees it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._seen_at = folder, time.monotonic()
        self._told: int | None = None

    def look(self) -> None:
        """Say once who it is, and kill it if it is left behind and stuck."""
        beat = read_beat(self._folder / ALIVE_NAME)
        if beat is None or beat.host != socket.gethostname():
            return
        if beat.pid != self._told:
            self._told = beat.pid
            self._tell(f"process {beat.pid} holds {TRAINER_LOCK_NAME}: waiting for it to end")
        if time.monotonic() - self._seen_at < ORPHAN_SECONDS or not beat.parent_pid:
            return
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(beat.pid)
            if process.ppid() != beat.parent_pid and "server_app.trainer" in process.cmdline():
                process.kill()
                # First: stopped in the midst of a transaction, it holds what is written to here.
                with contextlib.suppress(psutil.TimeoutExpired):
                    # Where nobody waits for orphans, one stays as a name without a process.
                    process.wait(timeout=5)
                self._tell(
                    f"process {beat.pid} was a trainer whose server is gone and which did not end by itself: "
                    "it is killed"
                )
                self._seen_at = time.monotonic()

    def _tell(self, text: str) -> None:
        log.warning("%s", text)
        run = open_run(self._folder)
        with contextlib.suppress(*STORAGE_ERRORS), contextlib.closing(run.store):
            run.store.apply(Noted(TRAINER, text))
