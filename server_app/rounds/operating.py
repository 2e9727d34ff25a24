"""What a person does to a run that goes on: pause, stop and resume it, let a device be forgotten.

All of it is a mark beside the run's phase, so that a run goes on exactly where it was. What a person has
paused takes what devices send, and the trainer ends what it has begun; nothing new begins.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection

from gkt_core.errors import RoundError
from server_app.rounds.growth import noted
from server_app.rounds.history import OPERATOR
from server_app.rounds.members import without
from server_app.rounds.state import STOPPED, Continued, Forgotten, Halted, Phase, RunState

NOBODY = "a forgotten device"


def operated(state: RunState, event: Halted | Continued | Forgotten, parts: Collection[str]) -> RunState:
    """Apply what a person wants.

    Args:
        state: Where the run stands.
        event: What is wanted.
        parts: Devices of the step that is trained now, or next.

    Raises:
        RoundError: It does not fit the state.
    """
    match event:
        case Halted():
            return halted(state, event)
        case Continued():
            return continued(state)
        case Forgotten(client_id):
            return forgotten(state, client_id, parts)


def halted(state: RunState, event: Halted) -> RunState:
    """Let the run wait, or end for now; doing so again may give another reason.

    Raises:
        RoundError: The run has ended by itself, or is stopped already and cannot be paused.
    """
    if state.phase in (Phase.FINISHED, Phase.FAILED):
        verb = "pause" if event.kind != STOPPED else "stop"
        raise RoundError(f"the run {_ended(state)}: there is nothing to {verb}")
    if state.halt == STOPPED and event.kind != STOPPED:
        raise RoundError("the run is stopped: gkt runs resume lets it go on")
    if (state.halt, state.halt_reason) == (event.kind, event.reason):
        return state
    state = noted(state, OPERATOR, f"{event.kind}: {event.reason}" if event.reason else event.kind)
    return dataclasses.replace(state, halt=event.kind, halt_reason=event.reason)


def continued(state: RunState) -> RunState:
    """Let the run go on where it was.

    Raises:
        RoundError: Nobody has paused or stopped it.
    """
    if not state.halt:
        hint = ": gkt serve --resume-failed takes it up" if state.phase is Phase.FAILED else ""
        raise RoundError(f"the run is neither paused nor stopped, it {_ended(state)}{hint}")
    state = noted(state, OPERATOR, f"resumed, after it was {state.halt}")
    return dataclasses.replace(state, halt="", halt_reason="")


def _ended(state: RunState) -> str:
    return "has failed" if state.phase is Phase.FAILED else f"is {state.phase}"


def settled(state: RunState) -> RunState:
    """Drop the mark of a run whose last round was being trained when it was set: it is finished."""
    if state.phase is not Phase.FINISHED or not state.halt:
        return state
    return dataclasses.replace(state, halt="", halt_reason="")


def forgotten(state: RunState, client_id: str, parts: Collection[str]) -> RunState:
    """Take a device out of the state, its name in words of the history included.

    Args:
        state: Where the run stands.
        client_id: A device that is no member any more.
        parts: Devices of the step that is trained now, or next.

    Raises:
        RoundError: It is a member, or is being trained on.
    """
    if client_id in state.clients:
        raise RoundError(f"{client_id} takes part in this run: it is revoked before it is forgotten")
    if state.phase is Phase.TRAINING and client_id in parts:
        raise RoundError(
            f"{client_id} is revoked, and the round that is being trained holds its samples: what it sent "
            "is erased when the round is over"
        )

    def others(pairs: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
        return tuple(pair for pair in pairs if pair[0] != client_id)

    return dataclasses.replace(
        state,
        selected=without(state.selected, client_id),
        reported=without(state.reported, client_id),
        revoked=without(state.revoked, client_id),
        trusted=without(state.trusted, client_id),
        late=without(state.late, client_id),
        in_step=without(state.in_step, client_id),
        answered=others(state.answered),
        done=others(state.done),
        uploads=others(state.uploads),
        views=others(state.views),
        quarantined=tuple(pair for pair in state.quarantined if pair[0] != client_id),
        history=tuple(
            dataclasses.replace(entry, text=named(client_id).sub(NOBODY, entry.text))
            for entry in state.history
        ),
        error=named(client_id).sub(NOBODY, state.error),
    )


def named(client_id: str) -> re.Pattern[str]:
    """Find a device's name in a text, and not within another's."""
    return re.compile(rf"(?<![A-Za-z0-9_-]){re.escape(client_id)}(?![A-Za-z0-9_-])")
