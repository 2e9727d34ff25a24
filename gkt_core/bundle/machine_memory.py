"""Memory of this machine, or of the container that this process is in."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CONTAINER_TAKEN = Path("/sys/fs/cgroup/memory.current")


def machine_bytes() -> int:
    """Give all memory that there is."""
    total = int(psutil.virtual_memory().total)
    with contextlib.suppress(OSError, ValueError):
        # "max" without a limit.
        total = min(total, _number(_CONTAINER_LIMIT))
    return total


def free_bytes() -> int:
    """Give the memory that is free now, or can be made so at once."""
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):
        free = min(free, max(0, _number(_CONTAINER_LIMIT) - _number(_CONTAINER_TAKEN)))
    return free


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
