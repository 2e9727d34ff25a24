"""One at a time: who reads all files of a run, or who drops some that others may read."""

from __future__ import annotations

import time
from collections.abc import Callable

from gkt_core.files import HeldLock, try_to_lock
from server_app.run_folder import BACKUP_LOCK_NAME, RunContext

_LOOK_SECONDS = 0.1


def after_backups(run: RunContext, still_waits: Callable[[], None]) -> HeldLock:
    """Wait until no backup reads what may be dropped, and let none begin until the lock is closed.

    Devices go on with their next round meanwhile.

    Args:
        run: The run.
        still_waits: Called again and again; what it raises ends the waiting.
    """
    while (lock := try_to_lock(run.folder / BACKUP_LOCK_NAME)) is None:
        still_waits()
        time.sleep(_LOOK_SECONDS)
    return lock
