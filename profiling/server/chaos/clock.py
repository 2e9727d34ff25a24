"""A clock that can be moved, for processes that this measurement starts.

Python imports ``sitecustomize`` at its start, the trainer's too, which the server starts: that one, written
into a folder of the measurement, lets ``time.time`` add what stands in a file.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_VARIABLE = "GKT_CHAOS_CLOCK"
_STARTUP = "from profiling.server.chaos.clock import follow_clock\n\nfollow_clock()\n"


class MovableClock:
    """The clock of all processes that are started with its environment.

    Args:
        folder: Where its files are, outside of the run's.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(_STARTUP, encoding="utf-8")
        self.move(0.0)
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {"PYTHONPATH": path, _VARIABLE: str(self._file)}

    def move(self, seconds: float) -> None:
        """Let it go so far before or behind the machine's."""
        temporary = self._file.with_name(".clock")
        temporary.write_text(repr(seconds), encoding="utf-8")
        temporary.replace(self._file)


def follow_clock() -> None:
    """Let this process's ``time.time`` follow the file of the environment."""
    path, real = os.environ.get(_VARIABLE, ""), time.time
    if not path:
        return

    def moved() -> float:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return real() + float(os.read(descriptor, 64))
        finally:
            os.close(descriptor)

    time.time = moved
