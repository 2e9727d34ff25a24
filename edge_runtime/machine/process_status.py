"""Memory of a process, as the kernel's ``/proc/PID/status`` has it; elsewhere as psutil tells it."""

from __future__ import annotations

from pathlib import Path

import psutil

from edge_runtime.machine.sysfs import read_text

# The same elsewhere, as psutil calls it: not every system has each of them.
_ELSEWHERE = {"VmRSS": "rss", "VmHWM": "peak_wset", "VmData": "private"}


def status_bytes(field: str, process: int | str = "self") -> int | None:
    """Read one field of a process; None where the system does not say, or the process is gone.

    Args:
        field: Such as ``VmHWM``, the most that ever lay in memory.
        process: Its id.
    """
    if not Path("/proc/self/status").exists():
        return _elsewhere(field, None if process == "self" else int(process))
    for line in (read_text(Path(f"/proc/{process}/status")) or "").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return int(value.split()[0]) * 1024
    return None


def _elsewhere(field: str, process: int | None) -> int | None:
    try:
        found = getattr(psutil.Process(process).memory_info(), _ELSEWHERE.get(field, ""), None)
    except psutil.Error:
        return None
    return None if found is None else int(found)
