"""Keeping a process on certain cores while it measures, where the system lets it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def pinned(num_cores: int) -> Iterator[list[int] | None]:
    """Stay on the first usable cores.

    Args:
        num_cores: How many.

    Yields:
        The cores; None where the system does not say or does not let us (macOS, Windows).
    """
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    cores: list[int] | None = sorted(before)[:num_cores]
    try:
        os.sched_setaffinity(0, cores or before)
    except OSError:
        cores = None
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, before)
