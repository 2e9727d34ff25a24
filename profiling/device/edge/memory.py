"""Memory of this process, from the kernel."""

from __future__ import annotations

import sys

from edge_runtime.machine.process_status import status_bytes


def resident_bytes() -> int | None:
    """Read what lies in memory now; None where the system does not say."""
    return status_bytes("VmRSS")


def peak_bytes() -> int:
    """Read the most that ever lay in memory since this program was started."""
    highest = status_bytes("VmHWM")
    if highest is not None:
        return highest
    import resource  # noqa: PLC0415 - there is none on Windows, which has answered above

    # In bytes on macOS, in kilobytes elsewhere. On Linux it may be the parent's, which the line above avoids.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
