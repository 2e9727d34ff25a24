"""A process that wants a core all the time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

_SPIN = "print(flush=True)\nwhile True:\n    pass"


@contextlib.contextmanager
def one_busy_core() -> Iterator[None]:
    """Keep one core busy for the length of the block."""
    with subprocess.Popen([sys.executable, "-c", _SPIN], stdout=subprocess.PIPE) as spinning:
        try:
            assert spinning.stdout is not None
            spinning.stdout.readline()
            yield
        finally:
            spinning.kill()
