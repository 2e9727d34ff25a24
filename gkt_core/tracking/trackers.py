"""Send each round once to each tool, from a thread of its own: a tool that hangs or fails stops no training.

What was sent stands in the run's folder, so that a run that goes on after a stop sends the rounds that are
missing, and none twice. What a tool does not take is tried again with growing pauses, and named in the log.
"""

from __future__ import annotations

import functools
import json
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkt_core.files import write_atomically
from gkt_core.tracking.about import About, Numbers, Writer
from gkt_core.tracking.options import MLFLOW, TENSORBOARD, Target

log = logging.getLogger("gkt.track")

SENT_NAME = "track.json"
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
# Of rounds that a tool has not taken when a command ends.
LAST_SECONDS = 30.0
# Opens a run in a tool, the one of an earlier process where its name is given.
Open = Callable[[Target, About, str], Writer]


def writer_of(target: Target) -> Open:
    """Give what opens a tool.

    Raises:
        MissingExtraError: It is not installed.
    """
    if target.kind == TENSORBOARD:
        from gkt_core.tracking import tensorboard_run  # noqa: PLC0415 - imports an extra

        return tensorboard_run.open_run
    if target.kind == MLFLOW:
        from gkt_core.tracking import mlflow_run  # noqa: PLC0415 - imports an extra

        return mlflow_run.open_run
    from gkt_core.tracking import wandb_run  # noqa: PLC0415 - imports an extra

    return wandb_run.open_run


class Trackers:
    """All tools of one run.

    Args:
        targets: Which; none for a run that is tracked nowhere.
        folder: Of the run, for what was sent.
        about: What tools are told of it.

    Raises:
        MissingExtraError: A tool is not installed.
    """

    def __init__(self, targets: Sequence[Target], folder: Path, about: About) -> None:
        # Before anything is trained.
        opens = [writer_of(target) for target in targets]
        sent = Sent(folder / SENT_NAME)
        self._threads = [
            _Thread(target, opened, about, sent) for target, opened in zip(targets, opens, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def last_round(self) -> int:
        """The last round that all tools have; rounds after it are to be told again."""
        return min((thread.last_round for thread in self._threads), default=0)

    def __bool__(self) -> bool:
        """Whether there is a tool."""
        return bool(self._threads)

    def round(self, round_num: int, numbers: Numbers) -> None:
        """Send a round, unless it was sent before; comes back at once."""
        for thread in self._threads:
            thread.put(round_num, dict(numbers))

    def close(
        self,
        *,
        ended: bool = False,
        failed: bool = False,
        final: Numbers | None = None,
        seconds: float = LAST_SECONDS,
    ) -> None:
        """Send what is left, and let go.

        Args:
            ended: Whether the run is over, and does not only stop.
            failed: Whether it failed.
            final: Numbers that only the end of a run has.
            seconds: For a tool that does not take it.
        """
        for thread in self._threads:
            thread.finish(_End(failed, dict(final or {})) if ended else None)
        for thread in self._threads:
            thread.join(seconds)
            if thread.is_alive():
                log.warning("%s did not take all rounds: the same command sends them again", thread.name)


@dataclass(frozen=True, slots=True)
class _End:
    failed: bool
    final: dict[str, float]


class Sent:
    """What was sent, by tool: the last round, and by what the tool knows the run."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()

    def of(self, target: Target) -> tuple[int, str, bool]:
        """Give the last round, the name of the run in a tool, and whether it was told the end."""
        entry = self._read().get(target.text, {})
        try:
            return int(entry.get("last_round", 0)), str(entry.get("run", "")), bool(entry.get("is_over"))
        except (AttributeError, TypeError, ValueError):
            return 0, "", False

    def note(self, target: Target, last_round: int, run: str, *, is_over: bool = False) -> None:
        """Note that a tool has all rounds up to one, and perhaps the end."""
        with self._lock:
            entry = {"last_round": last_round, "run": run, "is_over": is_over}
            entries = {**self._read(), target.text: entry}
            write_atomically(self._path, json.dumps(entries, indent=1).encode(), mode=0o600)

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


class _Thread(threading.Thread):
    """Takes rounds from a queue to one tool."""

    def __init__(self, target: Target, opened: Open, about: About, sent: Sent) -> None:
        super().__init__(name=target.shown, daemon=True)
        self._target, self._open, self._about, self._sent = target, opened, about, sent
        self.last_round, self._run_name, self._is_over = sent.of(target)
        self._put = self.last_round
        self._queue: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue()
        self._is_last = threading.Event()
        self._end: _End | None = None
        self._writer: Writer | None = None

    def put(self, round_num: int, numbers: dict[str, float]) -> None:
        """Send a round after those before it."""
        if round_num > self._put:
            self._put = round_num
            self._queue.put((round_num, numbers))

    def finish(self, end: _End | None) -> None:
        """End when all is sent."""
        self._end = end
        self._queue.put(None)
        self._is_last.set()

    def run(self) -> None:
        """Send until the end."""
        while (item := self._queue.get()) is not None:
            round_num, numbers = item
            if not self._until_taken(functools.partial(self._write, round_num, numbers)):
                return
        if self._end is not None and self.last_round and not self._is_over:
            self._until_taken(self._write_end)
        if self._writer is not None:
            self._writer.close()

    def _write(self, round_num: int, numbers: Numbers) -> None:
        writer = self._opened()
        writer.write(round_num, numbers)
        self._sent.note(self._target, round_num, writer.run)
        self.last_round, self._is_over = round_num, False

    def _write_end(self) -> None:
        assert self._end is not None
        writer = self._opened()
        if self._end.final:
            writer.write(self.last_round, self._end.final)
        writer.end(failed=self._end.failed)
        self._sent.note(self._target, self.last_round, writer.run, is_over=True)

    def _opened(self) -> Writer:
        if self._writer is None:
            self._writer = self._open(self._target, self._about, self._run_name)
            self._run_name = self._writer.run
        return self._writer

    def _until_taken(self, send: Callable[[], None]) -> bool:
        """Try until it is taken; whether it was: at the end nobody waits for a tool that is away."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                send()
            # Whatever a library or a network may raise.
            except Exception as error:
                log.warning("%s: %s: %s", self.name, type(error).__name__, str(error)[:300])
                if self._is_last.wait(pause):
                    # One last try, at once.
                    return self._once(send)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                return True

    def _once(self, send: Callable[[], None]) -> bool:
        try:
            send()
        except Exception as error:
            log.warning(
                "%s has not taken all rounds (%s): the same command sends them again",
                self.name,
                type(error).__name__,
            )
            return False
        return True
