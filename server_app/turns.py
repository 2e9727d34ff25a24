"""Tell waiting devices when it is their turn: one thread looks at state and secrets, however many wait.

A device's request for its task is kept by the web server's loop, without a thread, until the task is another
one than to wait (docs/adr/0027).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gkt_core.errors import GKTError, RoundError
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import RunState
from server_app.storage_errors import STORAGE_ERRORS
from server_app.store import RunStore
from server_app.store.credentials import Credential

# Between two looks at the state, which the trainer changes in a process of its own.
_LOOK_SECONDS = 0.5
# A look is recent for so many times as long; without one, a question is handled from the beginning.
_RECENT_LOOKS = 4


@dataclass(eq=False, slots=True)
class Turn:
    """One request that is kept.

    Attributes:
        watch: What looks after it.
        client_id: Whose turn is waited for.
        seconds: For so long at most.
        state: Of the run, which the answer was made from.
        credential: By what the device was known then.
        answer: What is sent when that is over: that the device goes on waiting.
        seen: What was looked at last, for this device; compared as an object.
    """

    watch: TurnWatch
    client_id: str
    seconds: float
    state: RunState
    credential: Credential | None = None
    answer: bytearray = field(default_factory=bytearray)
    seen: object = None

    def is_still(self) -> bool:
        """Say whether, as of a moment ago, the answer would be the same: to wait, for the same."""
        return self.watch.is_still(self)


class TurnWatch:
    """Looks whether it is the turn of devices that wait; its thread is there while some do.

    Args:
        store: Of the run.
        look_seconds: Between two looks.
    """

    def __init__(self, store: RunStore, look_seconds: float = _LOOK_SECONDS) -> None:
        self._store, self._look_seconds = store, look_seconds
        self._lock = threading.Lock()
        self._waiting: dict[Turn, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        # What was found by the last look that found something.
        self._state: RunState | None = None
        self._known: Mapping[str, Credential] = {}
        self._seen: tuple[Any, ...] = ()
        # Another one with everything that may give somebody a turn.
        self._token = object()
        self._looked_at = -math.inf
        self._is_over = threading.Event()

    def add(self, turn: Turn, wake: Callable[[], None]) -> None:
        """Look after one more; ``wake`` is called, once and in another thread, when its turn has come."""
        with self._lock:
            self._waiting[turn] = wake
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="turns", daemon=True)
                self._thread.start()

    def remove(self, turn: Turn) -> None:
        """Look after it no more."""
        with self._lock:
            self._waiting.pop(turn, None)

    def is_still(self, turn: Turn) -> bool:
        """Say whether the last look, if that was a moment ago, saw what a turn was answered from."""
        return (
            self._state is turn.state
            and self._known.get(turn.client_id) == turn.credential
            and time.monotonic() - self._looked_at < _RECENT_LOOKS * self._look_seconds
        )

    def close(self) -> None:
        """End the thread, whoever waits."""
        self._is_over.set()

    def _run(self) -> None:
        while not self._is_over.is_set():
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                waiting = list(self._waiting)
            try:
                state, known = self._store.state(), self._store.credentials.all()
            except (*STORAGE_ERRORS, GKTError):
                # They wait on; the next request of each says what is wrong.
                self._looked_at = -math.inf
            else:
                self._look(state, known, waiting)
                self._looked_at = time.monotonic()
            self._is_over.wait(self._look_seconds)

    def _look(self, state: RunState, known: Mapping[str, Credential], waiting: list[Turn]) -> None:
        if state is not self._state or known is not self._known:
            # What a task follows from; reports, of which there are as many as devices, give nobody a turn.
            seen = (
                state.phase,
                state.round_num,
                state.selected,
                state.clients,
                state.revoked,
                state.quarantined,
                state.halt,
            )
            if seen != self._seen or known is not self._known:
                self._seen, self._token = seen, object()
        self._state, self._known = state, known
        for turn in waiting:
            if turn.seen is self._token:
                continue
            turn.seen = self._token
            # A secret that has ended, or is to be replaced: its device hears of it.
            if known.get(turn.client_id) != turn.credential or has_turn(state, turn.client_id):
                with self._lock:
                    wake = self._waiting.pop(turn, None)
                if wake is not None:
                    wake()


def has_turn(state: RunState, client_id: str) -> bool:
    """Whether a device would be told something else than to wait; be it that it takes no part any more."""
    try:
        return rounds_of(state).task_for(state, client_id, 0.0).action != "wait"
    except RoundError:
        return True
