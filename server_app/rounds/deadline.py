"""Measure how long the open round has waited, for a state machine that has no clock."""

from __future__ import annotations

import time

from server_app.rounds.state import Phase, RunState


class Deadline:
    """When a round has waited long enough for this process: no device is late for a server that was down."""

    def __init__(self) -> None:
        self._round_num, self._opened_at = -1, 0.0

    def has_passed(self, state: RunState) -> bool:
        """Whether the devices of this round are late, and nobody said so yet."""
        if state.phase not in (Phase.JOINING, Phase.COLLECTING):
            return False
        now = time.monotonic()
        if state.round_num != self._round_num:
            self._round_num, self._opened_at = state.round_num, now
        return 0 < state.deadline_seconds <= now - self._opened_at and not state.overdue
