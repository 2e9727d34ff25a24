"""Decide who may train: one process of a folder, by a lock, and one folder of a run, by a lease.

A trainer that was killed leaves its lock at once, and a new one on the same folder takes the lease over as
its own. One on another machine waits until the lease has run out.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from gkt_core.files import try_to_lock
from server_app.run_folder import TRAINER_LOCK_NAME
from server_app.store import RunStore

LEASE_SECONDS = 60.0
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
def only_trainer(folder: Path, parent_pid: int | None) -> Iterator[bool]:
    """Wait until no other process trains this run, such as one whose server was just killed.

    Args:
        folder: The run's folder.
        parent_pid: Wait no longer than this process is our parent.

    Yields:
        Whether this process is the one now.
    """
    while (lock := try_to_lock(folder / TRAINER_LOCK_NAME)) is None:
        if parent_pid is not None and os.getppid() != parent_pid:
            yield False
            return
        time.sleep(_POLL_SECONDS)
    with lock:
        yield True
