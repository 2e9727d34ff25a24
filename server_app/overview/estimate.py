"""Estimate how long a run will take: as long a round as the last ones did."""

from __future__ import annotations

from statistics import fmean

from gkt_core.wire.protocol import RunStatus
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import Phase, RunState

# Rounds that the mean is of: devices come and go, and so does how long a round takes.
_LAST = 5


def seconds_left(status: RunStatus, state: RunState, open_seconds: float) -> float:
    """Seconds until the last round is done; -1 where there is nothing to go by, or nothing goes on.

    Args:
        status: With the last finished rounds.
        state: Of the same moment.
        open_seconds: How long the round that is open has taken until now.
    """
    if state.phase is Phase.FINISHED:
        return 0.0
    if state.phase is Phase.FAILED or state.halt or not status.finished_rounds:
        return -1.0
    if state.mode == "async":
        return _without_rounds(status, state)
    each = fmean(metrics.seconds for metrics in status.finished_rounds[-_LAST:])
    num_left = state.rounds - state.round_num + 1
    return max(0.0, num_left * each - min(each, open_seconds))


def _without_rounds(status: RunStatus, state: RunState) -> float:
    """By samples: a step may be of one device's, or of all."""
    steps = status.finished_rounds
    all_samples = sum(client.num_examples for client in status.clients)
    done, _, total = rounds_of(state).share(state)
    seconds, samples = sum(step.seconds for step in steps), sum(step.num_examples for step in steps)
    if not samples or not total:
        return -1.0
    return seconds * all_samples * state.rounds * (1 - done / total) / samples
