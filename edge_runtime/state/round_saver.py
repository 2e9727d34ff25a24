"""Saving the middle of a round every so often, so that a killed device loses seconds."""

from __future__ import annotations

import dataclasses
import time

from edge_runtime.state.state_dir import DeviceState, StateDir
from gkt_core.rounds.client_round import LocalProgress
from gkt_core.rounds.engine import DeviceEngine


class RoundSaver:
    """Called after each step with how far the round has come.

    Args:
        state_dir: Where to save.
        engine: Whose weights.
        state: Where the device stood when the round, or the rest of it, began.
        started: When that was, on :func:`time.perf_counter`.
        every_seconds: Between two saves.
    """

    def __init__(
        self,
        state_dir: StateDir,
        engine: DeviceEngine,
        state: DeviceState,
        started: float,
        every_seconds: float,
    ) -> None:
        self._state_dir = state_dir
        self._engine = engine
        self._state = state
        self._started = self._saved = started
        self._every_seconds = every_seconds

    def __call__(self, progress: LocalProgress) -> None:
        """Save if it is time to."""
        if time.perf_counter() - self._saved >= self._every_seconds:
            self.save(progress)

    def save(self, progress: LocalProgress) -> None:
        """Save, whatever the time."""
        state = dataclasses.replace(
            self._state,
            engine=self._engine.name,
            partial=progress,
            train_seconds=train_seconds(self._state, self._started),
        )
        self._state_dir.save(state, self._engine.save)
        self._saved = time.perf_counter()


def train_seconds(state: DeviceState, started: float) -> float:
    """Measure how long the round under way has trained, earlier processes included."""
    earlier = state.train_seconds if state.partial is not None else 0.0
    return earlier + time.perf_counter() - started
