"""The rounds of a run as a pure state machine: no Flask, no torch, no database, no clock.

::

    joining ----began---> collecting ---closed---> ready --claimed--> training
                                ^                    ^                    |
                                |                    +----- released -----+
                                +---- trained, rounds left ---------------+
                                                    finished <-- trained, last round
    failed <-- from every phase but finished

A run begins when all devices have joined, a round closes when all devices that were drawn for it have
reported; after a deadline, at least ``min_clients`` are enough for either. Whoever comes too late takes part
in the next round; a device that is revoked is waited for no longer, and a round that was ready with it alone
collects again. Every event is either applied, or refused with a :class:`RoundError` that leaves the state
as it was. Repeated events (a device that joins or reports again after a lost answer) change nothing.
"""

from __future__ import annotations

import dataclasses

from gkt_core.errors import RoundClosedError, RoundError
from gkt_core.protocol import Task
from gkt_core.sampling import sample_clients
from server_app.run_state import (
    Claimed,
    DeadlinePassed,
    Event,
    Failed,
    Joined,
    Phase,
    Released,
    Reported,
    Revoked,
    RulesChanged,
    RunState,
    Trained,
)


def advance(state: RunState, event: Event) -> RunState:
    """Apply one event.

    Raises:
        RoundError: The event does not fit the state.
    """
    match event:
        case Joined(client_id):
            return _joined(state, client_id)
        case Reported(client_id, round_num):
            return _reported(state, client_id, round_num)
        case DeadlinePassed(round_num):
            waits = state.phase in (Phase.JOINING, Phase.COLLECTING) and state.round_num == round_num
            return _settle(dataclasses.replace(state, overdue=True)) if waits else state
        case RulesChanged(min_clients, deadline_seconds):
            return _settle(
                dataclasses.replace(state, min_clients=min_clients, deadline_seconds=deadline_seconds)
            )
        case Revoked(client_id):
            return _revoked(state, client_id)
        case Claimed(round_num):
            _require(state, event, Phase.READY, round_num)
            return dataclasses.replace(state, phase=Phase.TRAINING)
        case Released():
            if state.phase is not Phase.TRAINING:
                return state
            return dataclasses.replace(state, phase=Phase.READY)
        case Trained(round_num):
            _require(state, event, Phase.TRAINING, round_num)
            return _trained(state)
        case Failed(error):
            if state.phase is Phase.FINISHED:
                raise RoundError("the run is finished and cannot fail any more")
            return dataclasses.replace(state, phase=Phase.FAILED, error=state.error or error)


def _require(state: RunState, event: Event, phase: Phase, round_num: int) -> None:
    if state.phase is not phase or state.round_num != round_num:
        raise RoundError(f"{event} does not fit a run that is {state.phase} in round {state.round_num}")


def _joined(state: RunState, client_id: str) -> RunState:
    if client_id in state.clients:
        return state
    if client_id in state.revoked:
        raise RoundError(f"{client_id} was revoked and cannot join this run again")
    if len(state.clients) >= state.num_clients:
        raise RoundError(
            f"{client_id} cannot join: all {state.num_clients} devices of this run have joined. "
            "Was it started under another --client-id or --state-dir before?"
        )
    if state.phase in (Phase.FINISHED, Phase.FAILED):
        raise RoundError(f"{client_id} cannot join: the run is {state.phase}")
    return _settle(dataclasses.replace(state, clients=tuple(sorted((*state.clients, client_id)))))


def _revoked(state: RunState, client_id: str) -> RunState:
    if client_id in state.revoked:
        return state
    if client_id not in state.clients:
        raise RoundError(f"{client_id} has not joined this run: there is nothing to revoke")

    def without(client_ids: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(each for each in client_ids if each != client_id)

    state = dataclasses.replace(
        state, clients=without(state.clients), revoked=tuple(sorted((*state.revoked, client_id)))
    )
    if state.phase not in (Phase.COLLECTING, Phase.READY):
        # A round that is being trained keeps this device's part: it cannot be taken out of a network.
        return state
    return _settle(
        dataclasses.replace(
            state,
            phase=Phase.COLLECTING,
            selected=without(state.selected),
            reported=without(state.reported),
        )
    )


def _settle(state: RunState) -> RunState:
    """Begin the run, draw devices, or close the round, if there is nothing left to wait for."""
    if state.phase is Phase.JOINING:
        enough = state.min_clients if state.overdue else state.num_clients
        return _opened(state, 1) if len(state.clients) >= max(1, enough) else state
    if state.phase is not Phase.COLLECTING:
        return state
    if not state.selected:
        # Everybody who was drawn has been revoked.
        return _opened(state, state.round_num) if state.clients else state
    enough = min(state.min_clients, len(state.selected)) if state.overdue else len(state.selected)
    closed = len(state.reported) >= max(1, enough)
    return dataclasses.replace(state, phase=Phase.READY) if closed else state


def _opened(state: RunState, round_num: int) -> RunState:
    drawn = sample_clients(state.clients, state.client_fraction, seed=state.seed, round_num=round_num)
    return dataclasses.replace(
        state,
        phase=Phase.COLLECTING,
        round_num=round_num,
        selected=tuple(drawn) if state.clients else (),
        reported=(),
        overdue=False,
    )


def _trained(state: RunState) -> RunState:
    now = dict.fromkeys(state.reported, state.round_num)
    state = dataclasses.replace(state, answered=tuple(sorted({**dict(state.answered), **now}.items())))
    if state.round_num == state.rounds:
        return dataclasses.replace(state, phase=Phase.FINISHED)
    return _opened(state, state.round_num + 1)


def check_upload(state: RunState, client_id: str, round_num: int) -> None:
    """Refuse uploads that do not belong to the open round.

    Raises:
        RoundClosedError: The round went on without this device, which may join the next one.
        RoundError: The device has not joined, or the round is not open for it.
    """
    _check_member(state, client_id)
    if client_id in state.reported and state.round_num == round_num:
        raise RoundError(f"{client_id} has closed its part of round {round_num}")
    where = f"round {round_num} is not open: the run is {state.phase} in round {state.round_num}"
    is_past = round_num < state.round_num or (
        round_num == state.round_num and state.phase is not Phase.COLLECTING
    )
    if round_num >= 1 and is_past and state.phase is not Phase.FAILED:
        raise RoundClosedError(where)
    if state.phase is not Phase.COLLECTING or state.round_num != round_num:
        raise RoundError(where)
    if client_id not in state.selected:
        raise RoundError(f"{client_id} was not drawn for round {round_num}")


def part_is_closed(state: RunState, client_id: str, round_num: int) -> bool:
    """Whether a report of this round changes nothing any more: it was taken, or it is too late."""
    if client_id not in state.clients or state.phase is Phase.FAILED:
        return False
    try:
        check_upload(state, client_id, round_num)
    except RoundClosedError:
        return True
    except RoundError:
        return client_id in state.reported and state.round_num == round_num
    return False


def _check_member(state: RunState, client_id: str) -> None:
    if client_id in state.revoked:
        raise RoundError(f"{client_id} was revoked: it takes no part in this run any more")
    if client_id not in state.clients:
        raise RoundError(f"{client_id} has not joined this run")


def _reported(state: RunState, client_id: str, round_num: int) -> RunState:
    if part_is_closed(state, client_id, round_num):
        return state
    check_upload(state, client_id, round_num)
    return _settle(dataclasses.replace(state, reported=tuple(sorted((*state.reported, client_id)))))


def task_for(state: RunState, client_id: str, retry_after_seconds: float) -> Task:
    """What a device does next.

    Args:
        state: Where the run stands.
        client_id: The device.
        retry_after_seconds: When to ask again, if there is nothing to do.

    Raises:
        RoundError: The device has not joined.
    """
    answered = state.last_answer(client_id)

    def task(action: str, reason: str, wait: float = 0.0) -> Task:
        return Task(action, state.round_num, answered, wait, reason)

    if client_id in state.revoked:
        return task("stop", f"{client_id} was revoked")
    _check_member(state, client_id)
    match state.phase:
        case Phase.JOINING:
            reason = f"{len(state.clients)} of {state.num_clients} devices have joined"
            return task("wait", reason, retry_after_seconds)
        case Phase.COLLECTING if client_id in state.selected and client_id not in state.reported:
            return task("train", f"round {state.round_num} of {state.rounds}")
        case Phase.COLLECTING:
            reason = f"{len(state.reported)} of {len(state.selected)} devices have reported"
            return task("wait", reason, retry_after_seconds)
        case Phase.READY | Phase.TRAINING:
            return task("wait", f"the server trains on round {state.round_num}", retry_after_seconds)
        case Phase.FINISHED:
            return task("finish", "the run is finished")
        case Phase.FAILED:
            return task("stop", state.error)
