"""The trainer's sign of life: a file that says what it does, and how long that may take it at most.

The trainer writes it where it works, and not in a thread of its own: one that hangs must fall silent. The
server, which started it, watches; a trainer that waits for another one's lock writes a file beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ALIVE_NAME, WAITING_NAME = "trainer.alive", "trainer.waiting"
LEAST_SILENCE_SECONDS = 120.0
# Until the first sign: loading PyTorch takes its time on a machine that is busy, and so does a network.
START_SECONDS = 600.0
# Of a look at the database, which a device's upload may hold up; and of a pause, should it not answer.
_LOOK_SECONDS, _PAUSE_SECONDS = 20.0, 60.0
# Of steps that give no signs: looking at all uploads, evaluating, writing. In units of the least silence.
_LONG_STEP = 10
# A batch may take so many times as long as the slowest before it.
_SLOWEST_FACTOR = 20
_WRITE_SECONDS = 0.5
# A watcher that has not looked for so long was stopped itself, or its machine was.
_OWN_GAP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Beat:
    """What a trainer says of itself.

    Attributes:
        pid: Its process.
        host: The machine of that.
        parent_pid: The server that started it; 0 for one that a person started.
        what: What it does.
        allowed_seconds: After so long without another sign it hangs.
    """

    pid: int
    host: str
    parent_pid: int
    what: str
    allowed_seconds: float


class Heartbeat:
    """Writes a trainer's signs of life.

    Args:
        folder: The run's.
        parent_pid: The server that watches; None where nobody does.
        least_seconds: How long the shortest step may be silent.
        name: Of the file.
    """

    def __init__(
        self,
        folder: Path,
        parent_pid: int | None = None,
        least_seconds: float = LEAST_SILENCE_SECONDS,
        name: str = ALIVE_NAME,
    ) -> None:
        self._path, self._least = folder / name, least_seconds
        self._beat = Beat(os.getpid(), socket.gethostname(), parent_pid or 0, "", 0.0)
        self._written_at, self._last_batch, self._slowest = -float("inf"), 0.0, 0.0

    def waits(self, what: str) -> None:
        """Say that nothing is done but look, again and again."""
        self._write(what, max(self._least, _LOOK_SECONDS))

    def pauses(self, what: str) -> None:
        """Say that it waits, without a look, for something that does not answer."""
        self._write(what, max(self._least, _PAUSE_SECONDS))

    def long_step(self, what: str) -> None:
        """Say that something begins that gives no signs until it is done."""
        self._last_batch = 0.0
        self._write(what, _LONG_STEP * self._least)

    def batch(self, what: str, rest_seconds: float = 0.0) -> None:
        """Say that a batch is done.

        Args:
            what: Of which round and epoch.
            rest_seconds: What may follow without a sign, if it was the last one.
        """
        now = time.monotonic()
        if self._last_batch:
            self._slowest = max(self._slowest, now - self._last_batch)
        self._last_batch = now
        self._write(what, max(self._least, _SLOWEST_FACTOR * self._slowest, rest_seconds))

    def _write(self, what: str, allowed_seconds: float) -> None:
        now = time.monotonic()
        same = (what, allowed_seconds) == (self._beat.what, self._beat.allowed_seconds)
        if same and now - self._written_at < _WRITE_SECONDS:
            return
        self._written_at = now
        self._beat = dataclasses.replace(self._beat, what=what, allowed_seconds=allowed_seconds)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.0.tmp")
        # A disk that is full is named elsewhere.
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(dataclasses.asdict(self._beat)), encoding="utf-8")
            temporary.replace(self._path)


def read_beat(path: Path) -> Beat | None:
    """The last sign of life; None where there is none."""
    try:
        return Beat(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class Watchdog:
    """Looks whether one trainer process falls silent.

    Args:
        folder: The run's.
        pid: The process.
        clock: Monotonic seconds.
    """

    def __init__(self, folder: Path, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._pid, self._clock = folder, pid, clock
        self._last: tuple[int, Beat] | None = None
        self._seen_at = self._looked_at = clock()

    @property
    def has_begun(self) -> bool:
        """Whether the process has the run's lock and has given a sign."""
        return self._last is not None

    def look(self) -> str:
        """How long, and in what, the trainer has been silent, if that is too long; an empty string if not."""
        now = self._clock()
        if now - self._looked_at > _OWN_GAP_SECONDS:
            self._seen_at = now
        self._looked_at = now
        sign = self._sign()
        if sign != self._last:
            self._last, self._seen_at = sign, now
        what, allowed = ("starting", START_SECONDS)
        if self._last is not None:
            what, allowed = self._last[1].what, self._last[1].allowed_seconds
        silent = now - self._seen_at
        return (
            ""
            if silent <= allowed
            else f"silent for {silent:.0f} s while {what}, {allowed:.0f} s are allowed"
        )

    def _sign(self) -> tuple[int, Beat] | None:
        for name in (ALIVE_NAME, WAITING_NAME):
            path = self._folder / name
            beat = read_beat(path)
            if beat is not None and beat.pid == self._pid:
                with contextlib.suppress(OSError):
                    return path.stat().st_mtime_ns, beat
        return None
