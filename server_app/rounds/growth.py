"""Let a run grow, or go on after a failure: pure functions of its state."""

from __future__ import annotations

import dataclasses

from gkt_core.errors import RoundError
from server_app.rounds.history import CHANGED, RESUMED, HistoryEntry, with_entry
from server_app.rounds.state import Grown, Phase, RunState


def noted(state: RunState, kind: str, text: str) -> RunState:
    """Add an entry to the history."""
    entry = HistoryEntry(kind, text, state.round_num)
    return dataclasses.replace(state, history=with_entry(state.history, entry))


def grown(state: RunState, event: Grown) -> RunState:
    """Take over the new numbers; where a finished run has rounds left now, its phase is for the mode to say.

    Raises:
        RoundError: A number shrinks, or devices are added to a run that has no rounds left for them.
    """
    for name, before, after in (
        ("rounds", state.rounds, event.rounds),
        ("devices", state.num_clients, event.num_clients),
    ):
        if after < before:
            raise RoundError(f"the run has {before} {name}, and cannot have {after}: it can only grow")
    if state.phase is Phase.FINISHED and event.num_clients > state.num_clients and not has_more(state, event):
        raise RoundError("the run is finished: more devices need more rounds, too")
    text = ", ".join(f"{name} {before:g} -> {after:g}" for name, before, after in event.changes)
    entry = HistoryEntry(CHANGED, text, state.round_num, changes=event.changes)
    return dataclasses.replace(
        state,
        rounds=event.rounds,
        num_clients=event.num_clients,
        history=with_entry(state.history, entry),
    )


def has_more(state: RunState, event: Grown) -> bool:
    """Whether a finished run goes on with this event."""
    return state.phase is Phase.FINISHED and event.rounds > state.rounds


def resumed(state: RunState) -> RunState:
    """Take up a run where it failed; what it waits for there is for the mode to say.

    Raises:
        RoundError: It has not failed.
    """
    if state.phase is not Phase.FAILED:
        raise RoundError(f"the run has not failed, it is {state.phase}: there is nothing to resume")
    phase = Phase.COLLECTING if state.round_num else Phase.JOINING
    state = noted(state, RESUMED, f"after: {state.error}")
    return dataclasses.replace(state, phase=phase, error="")
