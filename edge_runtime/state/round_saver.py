"""Saving the middle of a round every so often, so that a killed device loses seconds."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field

from edge_runtime.state.state_dir import DeviceState, StateDir
from gkt_core.rounds.client_round import LocalProgress
from gkt_core.rounds.engine import DeviceEngine


@dataclass(slots=True)
class RoundSaver:
    """Called after each step with how far the round has come.

    Attributes:
        state_dir: Where to save.
        engine: Whose weights.
        state: Where the device stood when the round, or the rest of it, began.
        started: When that was, on :func:`time.perf_counter`.
        every_seconds: Between two saves.
    """

    state_dir: StateDir
    engine: DeviceEngine
    state: DeviceState
    started: float
    every_seconds: float
    _saved: float = field(default=-math.inf, init=False)

    def __call__(self, progress: LocalProgress) -> None:
        """Save if it is time to."""
        if time.perf_counter() - max(self.started, self._saved) >= self.every_seconds:
            self.save(progress)

    def save(self, progress: LocalProgress) -> None:
        """Save, whatever the time."""
        state = dataclasses.replace(
            self.state,
            engine=self.engine.name,
            partial=progress,
            train_seconds=train_seconds(self.state, self.started),
        )
        self.state_dir.save(state, self.engine.save)
        self._saved = time.perf_counter()


def train_seconds(state: DeviceState, started: float) -> float:
    """Measure how long the round under way has trained, earlier processes included."""
    earlier = state.train_seconds if state.partial is not None else 0.0
    return earlier + time.perf_counter() - started
