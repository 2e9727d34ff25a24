"""A run in which the server trains on whatever has arrived (mode ``async``; section 4.4 of the paper).

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
quarantined device has spent the round; a run that has no other stops as in ``sync``. A released step is
claimed again with the same devices, so that it gives the same numbers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from gkt_core.errors import RoundClosedError, RoundError
from gkt_core.rounds.staleness import may_begin
from gkt_core.wire.protocol import Task
from server_app.rounds.members import check_takes_part, held, held_task, without
from server_app.rounds.state import Phase, RunState


@dataclass(frozen=True, slots=True)
class AsyncRounds:
    """The :class:`server_app.rounds.machine.Rounds` in which nobody waits for the whole fleet."""

    def settled(self, state: RunState) -> RunState:
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

    def admitted(self, state: RunState, client_id: str) -> RunState:
        """Let the device begin where the slowest of the others is."""
        return self.settled(_caught_up(state, client_id))

    def reported(self, state: RunState, client_id: str) -> RunState:
        """Put the device's part into the next step."""
        left = without(state.selected, client_id)
        reported = tuple(sorted((*state.reported, client_id)))
        return self.settled(dataclasses.replace(state, selected=left, reported=reported))

    def revoked(self, state: RunState, client_id: str) -> RunState:
        """Drop the device's part, unless the trainer has it already."""
        state = dataclasses.replace(
            state,
            selected=without(state.selected, client_id),
            reported=without(state.reported, client_id),
            late=without(state.late, client_id),
        )
        if state.phase in (Phase.READY, Phase.FAILED):
            # A step that is being trained keeps this device's part: it cannot be taken out of a network.
            state = dataclasses.replace(state, in_step=without(state.in_step, client_id))
        return self.settled(state)

    def quarantined(self, state: RunState, client_id: str, reason: str) -> RunState:
        """Count the device's round as done, and collect again if its part was the only one."""
        state = held(state, client_id, reason, state.in_step)
        state = dataclasses.replace(
            state,
            in_step=without(state.in_step, client_id),
            late=without(state.late, client_id),
            done=_pairs({**dict(state.done), client_id: _done(state, client_id) + 1}),
        )
        return state if state.in_step else self.settled(dataclasses.replace(state, phase=Phase.COLLECTING))

    def claimed(self, state: RunState) -> RunState:
        """Train on all that was reported, or once more on the step that was released."""
        step = state.in_step or state.reported
        left = tuple(each for each in state.reported if each not in step)
        return dataclasses.replace(state, phase=Phase.TRAINING, in_step=step, reported=left)

    def trained(self, state: RunState) -> RunState:
        """Count the devices' rounds as done, let late ones catch up, and finish when all are done."""
        own, late = self.parts(state), set(state.late)
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
        return self.settled(dataclasses.replace(state, phase=Phase.COLLECTING, round_num=state.round_num + 1))

    def lost(self, state: RunState, client_ids: tuple[str, ...]) -> RunState:
        """Let the devices work on the same round, from which the others' step is taken apart."""
        gone = set(client_ids)
        left = dataclasses.replace(
            state,
            phase=Phase.COLLECTING,
            selected=tuple(sorted({*state.selected, *(gone & set(state.clients))})),
            in_step=tuple(each for each in state.in_step if each not in gone),
            reported=tuple(each for each in state.reported if each not in gone),
        )
        return self.settled(left)

    def reopened(self, state: RunState) -> RunState:
        """Let devices go on, and count the server's next step."""
        return self.settled(dataclasses.replace(state, phase=Phase.COLLECTING, round_num=state.round_num + 1))

    def check_upload(self, state: RunState, client_id: str, round_num: int) -> None:
        """Refuse uploads of another round than the one that the device is in.

        Raises:
            RoundClosedError: The device's round is over, and it may ask what is next.
            RoundError: The device has not joined, or this is not the round that it is in.
        """
        check_takes_part(state, client_id)
        if self.has_reported(state, client_id, round_num):
            raise RoundError(f"{client_id} has closed its part of its round {round_num}")
        mine = _done(state, client_id) + 1
        where = (
            f"round {round_num} of {client_id} is not open: it is in its round {mine}, the run {state.phase}"
        )
        if state.phase is Phase.FAILED:
            raise RoundError(where)
        if 1 <= round_num < mine or (round_num == mine and state.phase is Phase.FINISHED):
            raise RoundClosedError(where)
        if client_id not in state.selected or round_num != mine:
            raise RoundError(where)

    def has_reported(self, state: RunState, client_id: str, round_num: int) -> bool:
        """Whether the device's part of its own current round was taken."""
        waits = client_id in state.reported or client_id in state.in_step
        return waits and round_num == _done(state, client_id) + 1

    def is_working(self, state: RunState, client_id: str) -> bool:
        """Whether the device has begun a round that it has not reported, also while the server trains."""
        open_phases = (Phase.COLLECTING, Phase.READY, Phase.TRAINING)
        return client_id in state.selected and state.phase in open_phases

    def parts(self, state: RunState) -> dict[str, int]:
        """The devices of the step that was claimed, or of the next one, each with its own round."""
        return {each: _done(state, each) + 1 for each in state.in_step or state.reported}

    def uploads(self, state: RunState) -> dict[str, int]:
        """The same as :meth:`parts`: each round has an upload."""
        return self.parts(state)

    def validation_parts(self, state: RunState) -> dict[str, int]:
        """All devices that ever had an answer or have a part now, each with its last upload."""
        answered = {each: num for each, num in state.answered if each in state.clients}
        return {**answered, **self.parts(state)}

    def is_last(self, state: RunState) -> bool:
        """Whether every device is done after this step."""
        return state.phase is Phase.TRAINING and self.trained(state).phase is Phase.FINISHED

    def shown_round(self, state: RunState) -> int:
        """As many rounds as uploads of all devices make, as in the simulation's metrics."""
        if state.phase is Phase.JOINING:
            return 0
        total = sum(_done(state, each) for each in state.clients)
        return min(state.rounds, total // max(1, len(state.clients)) + 1)

    def share(self, state: RunState) -> tuple[int, int, int]:
        """Count uploads, as the simulation does."""
        total = sum(_done(state, each) for each in state.clients)
        return total, len(self.parts(state)), state.rounds * max(1, len(state.clients))

    def staleness(self, state: RunState) -> dict[str, int]:
        """Rounds ahead of the slowest that is waited for; negative for those that are late."""
        slowest, done = _slowest(state), dict(state.done)
        return {each: done.get(each, 0) - (slowest or 0) for each in state.active}

    def task_for(self, state: RunState, client_id: str, retry_after_seconds: float) -> Task:
        """Train in the device's next round, or wait while it is too far ahead."""
        done, answered = _done(state, client_id), state.last_answer(client_id)
        if (told := held_task(state, client_id, done, retry_after_seconds)) is not None:
            return told
        if state.phase is Phase.FINISHED:
            return Task("finish", done, answered, 0.0, "the run is finished")
        if self.is_working(state, client_id):
            return Task("train", done + 1, answered, 0.0, f"its round {done + 1} of {state.rounds}")
        if state.phase is Phase.JOINING:
            reason = f"{len(state.clients)} of {state.num_clients} devices have joined"
        elif self.has_reported(state, client_id, done + 1):
            reason = f"the server trains in step {state.round_num}"
        else:
            reason = f"it is {done - (_slowest(state) or 0)} rounds ahead of the slowest device"
        return Task("wait", done, answered, retry_after_seconds, reason)


def _pairs(values: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(values.items()))


def _done(state: RunState, client_id: str) -> int:
    """Rounds that a device has behind it."""
    return dict(state.done).get(client_id, 0)


def _slowest(state: RunState) -> int | None:
    """The least number of rounds of those that are waited for; None if there is nobody."""
    done, late = dict(state.done), set(state.late)
    return min((done.get(each, 0) for each in state.active if each not in late), default=None)


def _caught_up(state: RunState, client_id: str) -> RunState:
    """Let a device go on where the slowest of the others is: what it missed is not made up."""
    others = [_done(state, each) for each in state.active if each != client_id and each not in state.late]
    done = max(_done(state, client_id), min(others, default=0))
    return dataclasses.replace(state, done=_pairs({**dict(state.done), client_id: done}))


def _let_go_on(state: RunState) -> RunState:
    """Let all devices begin their next round that are free and not too far ahead."""
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
