"""Let this process hold many connections: each is an open file."""

from __future__ import annotations

import contextlib

# Descriptors that are no connection's: files, the database, what a request opens.
_OTHER_DESCRIPTORS = 256


def raise_descriptor_limit(wanted: int) -> int:
    """Raise the limit of open files as far as this process may; how many connections that allows.

    Args:
        wanted: Connections.
    """
    import resource  # noqa: PLC0415 - there is none on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted + _OTHER_DESCRIPTORS
    if soft < target:
        soft = target if hard == resource.RLIM_INFINITY else min(target, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(wanted, soft - _OTHER_DESCRIPTORS))
