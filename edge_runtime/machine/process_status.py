"""Memory of a process, as the kernel's ``/proc/PID/status`` has it."""

from __future__ import annotations

from pathlib import Path


def status_bytes(field: str, process: int | str = "self") -> int | None:
    """Read one field of a process; None where the system does not say, or the process is gone.

    Args:
        field: Such as ``VmHWM``, the most that ever lay in memory.
        process: Its id.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key == field:
            return int(value.split()[0]) * 1024
    return None
