"""Memory of a process, as the kernel's ``/proc/PID/status`` has it."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.machine.sysfs import read_text


def status_bytes(field: str, process: int | str = "self") -> int | None:
    """Read one field of a process; None where the system does not say, or the process is gone.

    Args:
        field: Such as ``VmHWM``, the most that ever lay in memory.
        process: Its id.
    """
    for line in (read_text(Path(f"/proc/{process}/status")) or "").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return int(value.split()[0]) * 1024
    return None
