"""Memory of this process, from the kernel."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def resident_bytes() -> int | None:
    """What lies in memory now; None where the system does not say."""
    return _status_field("VmRSS")


def peak_bytes() -> int:
    """The most that ever lay in memory since this program was started."""
    found = _status_field("VmHWM")
    if found is not None:
        return found
    # In bytes on macOS, in kilobytes elsewhere. On Linux it may be the parent's, which the line above avoids.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_field(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None
