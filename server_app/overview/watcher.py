"""Tell the log what happens to a run, and what it waits for when nothing does: one thread of the server."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gkt_core.errors import GKTError
from gkt_core.files import write_atomically
from gkt_core.tracking.numbers import served_numbers
from gkt_core.tracking.trackers import Trackers
from server_app.logs.formats import event
from server_app.overview.amounts import as_duration
from server_app.overview.events import Line, changes, round_line
from server_app.overview.judging import waiting_for
from server_app.overview.messages import INFO, Overview
from server_app.overview.seen import Ledger
from server_app.rounds.state import Phase, RunState
from server_app.run_folder import RunContext
from server_app.status import round_page
from server_app.storage_errors import STORAGE_ERRORS
from server_app.store import RunStore

log = logging.getLogger("gkt.run")

# In the run's folder: up to where the log has told of everything.
TOLD_NAME = "told.json"

LOOK_SECONDS = 1.0
# A line says what is waited for after so long without another, then after twice as long, and so on.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 60.0, 3600.0
_SAVE_SECONDS = 5.0
# What is kept of devices that are not there any more goes this often.
_TIDY_SECONDS = 60.0
_ROUNDS_AT_ONCE = 100


class RunWatcher:
    """Looks at the state of a run once a second.

    Args:
        run: The run.
        ledger: Kept now and then.
        look: Gives the document that waiting is told of from.
        look_seconds: Between two looks.
        first_wait_seconds: After which silence is broken.
        trackers: Where rounds go beside the log.
    """

    def __init__(
        self,
        run: RunContext,
        ledger: Ledger,
        look: Callable[[], Overview],
        *,
        look_seconds: float = LOOK_SECONDS,
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
        trackers: Trackers | None = None,
    ) -> None:
        self._trackers, self._tracked_round = trackers, trackers.last_round if trackers else -1
        self._store, self._ledger, self._look = run.store, ledger, look
        self._told_path = run.folder / TOLD_NAME
        self._look_seconds = look_seconds
        self._silence = Silence(first_wait_seconds)
        self._before: RunState | None = None
        self._last_round, self._saved_at, self._tidied_at = 0, 0.0, -math.inf
        # Of the rounds that were seen while they were open: who was awaited.
        self._drawn: dict[int, tuple[str, ...]] = {}
        self._told_of, self._has_looked = "", False
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="run-watch", daemon=True)

    def start(self) -> None:
        """Begin to look, from now on or from where an earlier server had told of everything."""
        with contextlib.suppress(*STORAGE_ERRORS, GKTError):
            self._begin()
        self._thread.start()

    def _begin(self) -> None:
        self._before, self._last_round = _read_told(self._told_path)
        if self._before is None:
            records = self._store.past.last_rounds(1)
            self._before = self._store.state()
            self._last_round = records[-1].round_num if records else 0

    def stop(self) -> None:
        """Look once more, and end."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_over.is_set()
            # One that does not answer is told of by those who need it.
            try:
                self.look()
            except (*STORAGE_ERRORS, GKTError) as error:
                self._say_once("storage", f"the storage does not answer: {error}")
            else:
                self._told_of = ""
            self._is_over.wait(self._look_seconds)

    def look(self) -> None:
        """Look once, and say what happened since the last time."""
        if self._before is None:
            self._begin()
        assert self._before is not None
        state = self._store.state()
        if self._tracked_round >= 0 and (state != self._before or not self._has_looked):
            self._track()
        self._has_looked = True
        if state != self._before:
            lines = [*self._rounds(state), *changes(self._before, state, self._store.clients())]
            for line in lines:
                self._say(line)
            self._before = state
            # Somebody may have been forgotten.
            self._tidied_at = -math.inf
            if lines:
                self._silence.is_broken()
                with contextlib.suppress(OSError):
                    _write_told(self._told_path, state, self._last_round)
        if state.phase is Phase.COLLECTING:
            self._drawn[state.round_num] = state.selected
        if self._silence.is_over(state):
            self._say_what_is_waited_for()
        now = time.monotonic()
        if now - self._saved_at >= _SAVE_SECONDS or self._is_over.is_set():
            self._saved_at = now
            if now - self._tidied_at >= _TIDY_SECONDS or self._is_over.is_set():
                self._tidied_at = now
                self._ledger.keep_only(known_devices(self._store))
            self._ledger.save()

    def _rounds(self, state: RunState) -> list[Line]:
        """Those that were finished since; several, where the storage did not answer for long."""
        lines: list[Line] = []
        while True:
            page = round_page(self._store, self._last_round, _ROUNDS_AT_ONCE)
            for metrics in page.rounds:
                self._last_round = metrics.round_num
                is_of_round = state.mode != "async"
                reported = sorted(self._store.reports(metrics.round_num)) if is_of_round else None
                drawn = self._drawn.pop(metrics.round_num, ())
                lines.append(round_line(metrics, state, reported, drawn))
            if not page.next_after:
                return lines

    def _track(self) -> None:
        """Send the rounds that tools do not have, those of before this server too."""
        assert self._trackers is not None
        while True:
            page = round_page(self._store, self._tracked_round, _ROUNDS_AT_ONCE)
            for metrics in page.rounds:
                self._tracked_round = metrics.round_num
                self._trackers.round(metrics.round_num, served_numbers(metrics))
            if not page.next_after:
                return

    def _say_what_is_waited_for(self) -> None:
        document = self._look()
        waited = f", for {as_duration(document.waits_seconds)} now" if document.waits_seconds >= 1 else ""
        self._say(Line("waiting", f"{waiting_for(document)}{waited}"))
        for finding in document.findings:
            if finding.severity != INFO:
                text = f"{finding.text}: {finding.remedy}" if finding.remedy else finding.text
                fields = {"kind": finding.kind, "client_id": finding.client_id}
                self._say(Line("finding", text, logging.WARNING, fields))

    def _say_once(self, name: str, text: str) -> None:
        if text != self._told_of:
            self._told_of = text
            self._say(Line(name, text, logging.WARNING))

    def _say(self, line: Line) -> None:
        log.log(line.level, "%s", line.text, extra=event(line.name, **line.fields))


def tells_changes(folder: Path) -> bool:
    """Say whether a watcher that begins now tells of what changes of a run before it begins."""
    return _read_told(folder / TOLD_NAME)[0] is not None


def _read_told(path: Path) -> tuple[RunState | None, int]:
    """The state that all was told of, and the last round; None where nobody knows."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return RunState.from_dict(kept["state"]), int(kept["last_round"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, 0


def _write_told(path: Path, state: RunState, last_round: int) -> None:
    values = {"state": state.to_dict(), "last_round": last_round}
    write_atomically(path, json.dumps(values).encode(), mode=0o600)


class Silence:
    """When a line is due as nothing has happened: after growing times.

    Args:
        first_seconds: The first of them.
        longest_seconds: None is longer.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        first_seconds: float,
        longest_seconds: float = LONGEST_WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first, self._longest, self._clock = first_seconds, longest_seconds, clock
        self._since, self._pause = clock(), first_seconds

    def is_broken(self) -> None:
        """Begin anew: something was said."""
        self._since, self._pause = self._clock(), self._first

    def is_over(self, state: RunState) -> bool:
        """Whether it was silent for long enough; asked again, for as long again and longer."""
        if state.phase in (Phase.FINISHED, Phase.FAILED):
            return False
        now = self._clock()
        if now - self._since < self._pause:
            return False
        self._since, self._pause = now, min(2 * self._pause, self._longest)
        return True


def known_devices(store: RunStore) -> set[str]:
    """All that have joined or enrolled."""
    return {*store.clients(), *store.credentials.devices()}
