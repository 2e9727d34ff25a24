"""What processes take: CPU time and memory of a process and its children, kernel time included."""

from __future__ import annotations

import contextlib

import psutil

# The trainer is a child of the server, and no part of serving.
_NOT_SERVING = "server_app.trainer"


def serving_processes(pid: int) -> list[psutil.Process]:
    """A process and its children, without the trainer."""
    parent = psutil.Process(pid)
    serving = [parent]
    for child in parent.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if _NOT_SERVING not in child.cmdline():
                serving.append(child)
    return serving


def cpu_seconds(pid: int) -> float:
    """User and system time so far, as ``/proc/PID/stat`` has it."""
    total = 0.0
    for process in serving_processes(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total
