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
        RoundError: A number shrinks, or devices are added that no round is left for.
    """
    for name, before, after in (
        ("rounds", state.rounds, event.rounds),
        ("devices", state.num_clients, event.num_clients),
    ):
        if after < before:
            raise RoundError(f"the run has {before} {name}, and cannot have {after}: it can only grow")
    if event.num_clients > state.num_clients and event.rounds < (first := _first_of_new(state)):
        raise RoundError(
            f"a new device takes part from round {first} on, and the run has {event.rounds}: more devices "
            f"need more rounds, --rounds {first} at least"
        )
    text = ", ".join(f"{name} {before:g} -> {after:g}" for name, before, after in event.changes)
    entry = HistoryEntry(CHANGED, text, state.round_num, changes=event.changes)
    return dataclasses.replace(
        state,
        rounds=event.rounds,
        num_clients=event.num_clients,
        history=with_entry(state.history, entry),
    )


def _first_of_new(state: RunState) -> int:
    """The first round of a device that joins now."""
    if state.mode == "async":
        # It joins in the midst of the run, unless that is over.
        return state.rounds + (state.phase is Phase.FINISHED)
    # The round after a finished one is open before anybody can join.
    return state.round_num + 1 + (state.phase is Phase.FINISHED)


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
