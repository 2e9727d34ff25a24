"""The rounds of a run as a pure state machine: no Flask, no torch, no database, no clock.

::

    joining ----began---> collecting ---closed---> ready --claimed--> training
                                ^                    ^                    |
                                |                    +----- released -----+
                                +---- trained, rounds left ---------------+
                                +---- quarantined, nobody left -----------+
                                                    finished <-- trained, last round
    failed <-- from every phase but finished

A run begins when all devices have joined, a round closes when all devices that were drawn for it have
reported; after a deadline, at least ``min_clients`` are enough for either. Whoever comes too late takes part
in the next round; a device that is revoked is waited for no longer, and a round that was ready with it alone
collects again. A device that is quarantined while a round is trained has no part in that round, and is
drawn for no other until it is pardoned. Every event is either applied, or refused with a
:class:`RoundError` that leaves the state as it was. Repeated events (a device that joins or reports again
after a lost answer) change nothing.
"""

from __future__ import annotations

import dataclasses

from gkt_core.errors import RoundClosedError, RoundError
from gkt_core.rounds.sampling import sample_clients
from gkt_core.wire.protocol import Task
from server_app.rounds.members import (
    check_fits,
    check_joining,
    check_member,
    check_not_held,
    failed,
    held,
    held_task,
    pardoned,
    released,
    revoked,
    without,
)
from server_app.rounds.state import (
    Claimed,
    DeadlinePassed,
    Event,
    Failed,
    Joined,
    Pardoned,
    Phase,
    Quarantined,
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
        case Quarantined(client_id, round_num, reason):
            check_fits(state, event, Phase.TRAINING, round_num)
            return _quarantined(state, client_id, reason)
        case Pardoned(client_id, trusted):
            return _settle(pardoned(state, client_id, trusted))
        case Claimed(round_num):
            check_fits(state, event, Phase.READY, round_num)
            return dataclasses.replace(state, phase=Phase.TRAINING)
        case Released():
            return released(state)
        case Trained(round_num):
            check_fits(state, event, Phase.TRAINING, round_num)
            return _trained(state)
        case Failed(error):
            return failed(state, error)


def _joined(state: RunState, client_id: str) -> RunState:
    if client_id in state.clients:
        return state
    check_joining(state, client_id)
    return _settle(dataclasses.replace(state, clients=tuple(sorted((*state.clients, client_id)))))


def _quarantined(state: RunState, client_id: str, reason: str) -> RunState:
    if client_id not in state.reported:
        raise RoundError(
            f"{client_id} has no part in round {state.round_num}: there is nothing to quarantine"
        )
    state = dataclasses.replace(
        held(state, client_id, reason),
        selected=without(state.selected, client_id),
        reported=without(state.reported, client_id),
    )
    return state if state.reported else _settle(dataclasses.replace(state, phase=Phase.COLLECTING))


def _revoked(state: RunState, client_id: str) -> RunState:
    if client_id in state.revoked:
        return state
    state = revoked(state, client_id)
    if state.phase not in (Phase.COLLECTING, Phase.READY):
        # A round that is being trained keeps this device's part: it cannot be taken out of a network.
        return state
    return _settle(
        dataclasses.replace(
            state,
            phase=Phase.COLLECTING,
            selected=without(state.selected, client_id),
            reported=without(state.reported, client_id),
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
        # Everybody who was drawn has been revoked or quarantined.
        return _opened(state, state.round_num) if state.active else state
    enough = min(state.min_clients, len(state.selected)) if state.overdue else len(state.selected)
    closed = len(state.reported) >= max(1, enough)
    return dataclasses.replace(state, phase=Phase.READY) if closed else state


def _opened(state: RunState, round_num: int) -> RunState:
    drawn = sample_clients(state.active, state.client_fraction, seed=state.seed, round_num=round_num)
    return dataclasses.replace(
        state,
        phase=Phase.COLLECTING,
        round_num=round_num,
        selected=tuple(drawn) if state.active else (),
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
    check_member(state, client_id)
    check_not_held(state, client_id)
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
        return has_reported(state, client_id, round_num)
    return False


def _reported(state: RunState, client_id: str, round_num: int) -> RunState:
    if part_is_closed(state, client_id, round_num):
        return state
    check_upload(state, client_id, round_num)
    return _settle(dataclasses.replace(state, reported=tuple(sorted((*state.reported, client_id)))))


def has_reported(state: RunState, client_id: str, round_num: int) -> bool:
    """Whether the device's part of this round was taken, and waits or is trained on."""
    return client_id in state.reported and round_num == state.round_num


def parts(state: RunState) -> dict[str, int]:
    """The devices whose uploads the trainer takes next or has taken, each with its number of the round."""
    return dict.fromkeys(state.reported, state.round_num)


def validation_parts(state: RunState) -> dict[str, int]:
    """Whose validation samples count, each with the round that they are of."""
    return parts(state)


def is_working(state: RunState, client_id: str) -> bool:
    """Whether uploads of this device are awaited."""
    waits = client_id in state.selected and client_id not in state.reported
    return waits and state.phase is Phase.COLLECTING


def shown_round(state: RunState) -> int:
    """The round for people and for learning rates."""
    return state.round_num


def staleness(state: RunState) -> dict[str, int]:
    """Nothing: all devices are in the same round."""
    return {}


def is_last(state: RunState) -> bool:
    """Whether the run is finished once the trainer is done with what it has."""
    return state.round_num == state.rounds


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

    if (told := held_task(state, client_id, state.round_num, retry_after_seconds)) is not None:
        return told
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
