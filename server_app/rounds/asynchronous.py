"""A run without rounds as a pure state machine: the server trains on whatever has arrived (section 4.4).

::

    joining --began--> collecting --reported--> ready --claimed--> training
                           ^                     ^ ^                  |
                           |                     | +---- released ----+
                           |                     +-- trained, others have reported
                           +---- trained, nobody has reported --------+
                                                       finished <-- trained, every device is done
    failed <-- from every phase but finished

Every device has rounds of its own, and each of them does all. ``round_num`` counts the steps of the server,
one for all that had arrived when it was claimed. A device may be ``max_staleness`` rounds ahead of the
slowest, by the rule of the simulation (:func:`gkt_core.rounds.staleness.may_begin`); uploads are taken
while the server trains. After a deadline in which nothing arrived, those that are waited for are late:
nobody waits for them, and with their next report they go on where the slowest of the others is. A
quarantined device has spent the round. A released step is claimed again with the same devices, so that it
gives the same numbers.
"""

from __future__ import annotations

import dataclasses

from gkt_core.errors import RoundClosedError, RoundError
from gkt_core.rounds.staleness import may_begin
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
            state = pardoned(state, client_id, trusted)
            return _settle(_caught_up(state, client_id))
        case Claimed(round_num):
            check_fits(state, event, Phase.READY, round_num)
            step = state.in_step or state.reported
            left = tuple(each for each in state.reported if each not in step)
            return dataclasses.replace(state, phase=Phase.TRAINING, in_step=step, reported=left)
        case Released():
            return released(state)
        case Trained(round_num):
            check_fits(state, event, Phase.TRAINING, round_num)
            return _trained(state)
        case Failed(error):
            return failed(state, error)


def _pairs(values: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(values.items()))


def _done(state: RunState, client_id: str) -> int:
    """Rounds that a device has behind it."""
    return dict(state.done).get(client_id, 0)


def _slowest(state: RunState) -> int | None:
    """The least number of rounds of those that are waited for; None if there is nobody."""
    return min((_done(state, each) for each in state.active if each not in state.late), default=None)


def _caught_up(state: RunState, client_id: str) -> RunState:
    """Let a device go on where the slowest of the others is: what it missed is not made up."""
    others = [_done(state, each) for each in state.active if each != client_id and each not in state.late]
    done = max(_done(state, client_id), min(others, default=0))
    return dataclasses.replace(state, done=_pairs({**dict(state.done), client_id: done}))


def _joined(state: RunState, client_id: str) -> RunState:
    if client_id in state.clients:
        return state
    check_joining(state, client_id)
    state = dataclasses.replace(state, clients=tuple(sorted((*state.clients, client_id))))
    return _settle(_caught_up(state, client_id))


def _revoked(state: RunState, client_id: str) -> RunState:
    if client_id in state.revoked:
        return state
    state = dataclasses.replace(
        revoked(state, client_id),
        selected=without(state.selected, client_id),
        reported=without(state.reported, client_id),
        late=without(state.late, client_id),
    )
    if state.phase is Phase.READY:
        # A step that is being trained keeps this device's part: it cannot be taken out of a network.
        state = dataclasses.replace(state, in_step=without(state.in_step, client_id))
    return _settle(state)


def _quarantined(state: RunState, client_id: str, reason: str) -> RunState:
    if client_id not in state.in_step:
        raise RoundError(f"{client_id} has no part in step {state.round_num}: there is nothing to quarantine")
    state = dataclasses.replace(
        held(state, client_id, reason),
        in_step=without(state.in_step, client_id),
        late=without(state.late, client_id),
        done=_pairs({**dict(state.done), client_id: _done(state, client_id) + 1}),
    )
    return state if state.in_step else _settle(dataclasses.replace(state, phase=Phase.COLLECTING))


def _settle(state: RunState) -> RunState:
    """Begin the run, let devices begin their next round, or have a step ready."""
    if state.phase is Phase.JOINING:
        enough = state.min_clients if state.overdue else state.num_clients
        if len(state.clients) < max(1, enough):
            return state
        state = dataclasses.replace(state, phase=Phase.COLLECTING, round_num=1, overdue=False)
    if state.phase in (Phase.FINISHED, Phase.FAILED):
        return state
    state = _let_go_on(state)
    if state.overdue and state.phase is Phase.COLLECTING and not state.reported:
        waited_for = [each for each in state.selected if each not in state.late]
        if len(state.active) - len(state.selected) >= max(1, state.min_clients) and waited_for:
            state = _let_go_on(dataclasses.replace(state, late=state.selected))
    if state.phase is Phase.TRAINING:
        return state
    ready = bool(state.reported or state.in_step or _is_over(state))
    return dataclasses.replace(state, phase=Phase.READY if ready else Phase.COLLECTING)


def _let_go_on(state: RunState) -> RunState:
    slowest = _slowest(state)
    if slowest is None:
        return state
    busy = {*state.selected, *state.reported, *state.in_step}
    free = [
        each
        for each in state.active
        if each not in busy
        and may_begin(_done(state, each), slowest, rounds=state.rounds, max_staleness=state.max_staleness)
    ]
    return dataclasses.replace(state, selected=tuple(sorted((*state.selected, *free))))


def _is_over(state: RunState) -> bool:
    """Whether everybody who is waited for is done: a last step publishes the model, even an empty one."""
    slowest = _slowest(state)
    return slowest is not None and slowest >= state.rounds


def _trained(state: RunState) -> RunState:
    own, late = parts(state), set(state.late)
    state = dataclasses.replace(
        state,
        late=tuple(each for each in state.late if each not in own),
        answered=_pairs({**dict(state.answered), **own}),
        done=_pairs({**dict(state.done), **own}),
        in_step=(),
        overdue=False,
    )
    for each in sorted(late & own.keys()):
        state = _caught_up(state, each)
    if _is_over(state):
        return dataclasses.replace(state, phase=Phase.FINISHED)
    return _settle(dataclasses.replace(state, phase=Phase.COLLECTING, round_num=state.round_num + 1))


def check_upload(state: RunState, client_id: str, round_num: int) -> None:
    """Refuse uploads that nobody waits for.

    Raises:
        RoundClosedError: The device's round is over, and it may ask what is next.
        RoundError: The device has not joined, or this is not the round that it is in.
    """
    check_member(state, client_id)
    check_not_held(state, client_id)
    if has_reported(state, client_id, round_num):
        raise RoundError(f"{client_id} has closed its part of its round {round_num}")
    mine = _done(state, client_id) + 1
    where = f"round {round_num} of {client_id} is not open: it is in its round {mine}, the run {state.phase}"
    if state.phase is Phase.FAILED:
        raise RoundError(where)
    if 1 <= round_num < mine or (round_num == mine and state.phase is Phase.FINISHED):
        raise RoundClosedError(where)
    if client_id not in state.selected or round_num != mine:
        raise RoundError(where)


def has_reported(state: RunState, client_id: str, round_num: int) -> bool:
    """Whether the device's part of this round was taken, and waits or is trained on."""
    waits = client_id in state.reported or client_id in state.in_step
    return waits and round_num == _done(state, client_id) + 1


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
    return _settle(
        dataclasses.replace(
            state,
            selected=without(state.selected, client_id),
            reported=tuple(sorted((*state.reported, client_id))),
        )
    )


def parts(state: RunState) -> dict[str, int]:
    """The devices whose uploads the trainer takes next or has taken, each with its own round."""
    return {each: _done(state, each) + 1 for each in state.in_step or state.reported}


def validation_parts(state: RunState) -> dict[str, int]:
    """Whose validation samples count, each with the round that they are of: everybody's last upload."""
    return {**{each: num for each, num in state.answered if each in state.clients}, **parts(state)}


def is_working(state: RunState, client_id: str) -> bool:
    """Whether uploads of this device are awaited."""
    open_phases = (Phase.COLLECTING, Phase.READY, Phase.TRAINING)
    return client_id in state.selected and state.phase in open_phases


def is_last(state: RunState) -> bool:
    """Whether the run is finished once the trainer is done with what it has."""
    return state.phase is Phase.TRAINING and _trained(state).phase is Phase.FINISHED


def shown_round(state: RunState) -> int:
    """As many rounds as uploads of all devices make, as in the simulation's metrics."""
    if state.phase is Phase.JOINING:
        return 0
    total = sum(_done(state, each) for each in state.clients)
    return min(state.rounds, total // max(1, len(state.clients)) + 1)


def staleness(state: RunState) -> dict[str, int]:
    """How many rounds each device is ahead of the slowest that is waited for; late ones are behind."""
    slowest = _slowest(state)
    return {each: _done(state, each) - (slowest or 0) for each in state.active}


def task_for(state: RunState, client_id: str, retry_after_seconds: float) -> Task:
    """What a device does next.

    Args:
        state: Where the run stands.
        client_id: The device.
        retry_after_seconds: When to ask again, if there is nothing to do.

    Raises:
        RoundError: The device has not joined.
    """
    done, answered = _done(state, client_id), state.last_answer(client_id)
    if (told := held_task(state, client_id, done, retry_after_seconds)) is not None:
        return told
    if state.phase is Phase.FINISHED:
        return Task("finish", done, answered, 0.0, "the run is finished")
    if is_working(state, client_id):
        return Task("train", done + 1, answered, 0.0, f"its round {done + 1} of {state.rounds}")
    if state.phase is Phase.JOINING:
        reason = f"{len(state.clients)} of {state.num_clients} devices have joined"
    elif has_reported(state, client_id, done + 1):
        reason = f"the server trains in step {state.round_num}"
    else:
        reason = f"it is {done - (_slowest(state) or 0)} rounds ahead of the slowest device"
    return Task("wait", done, answered, retry_after_seconds, reason)
