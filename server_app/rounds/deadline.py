"""Measure how long the open round has waited, for a state machine that has no clock."""

from __future__ import annotations

import time

from server_app.rounds.state import Phase, RunState


class Deadline:
    """When a round has waited long enough for this process.

    No device is late for a server that was down, nor for a run that a person had paused.
    """

    def __init__(self) -> None:
        self._round_num, self._waited, self._looked_at = -1, 0.0, 0.0

    def has_passed(self, state: RunState) -> bool:
        """Whether the devices of this round are late, and nobody said so yet."""
        now = time.monotonic()
        since_last_look, self._looked_at = now - self._looked_at, now
        if state.phase not in (Phase.JOINING, Phase.COLLECTING):
            return False
        if state.round_num != self._round_num:
            self._round_num, self._waited = state.round_num, 0.0
        elif not state.halt:
            self._waited += since_last_look
        return 0 < state.deadline_seconds <= self._waited and not state.overdue and not state.halt
