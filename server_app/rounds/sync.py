"""A run of rounds that all devices go through together (mode ``sync``).

::

    joining ----began---> collecting ---closed---> ready --claimed--> training
                                ^                    ^                    |
                                |                    +----- released -----+
                                +---- trained, rounds left ---------------+
                                +---- quarantined, nobody left -----------+
                                                    finished <-- trained, last round
    failed <-- from every phase but finished; a person takes it up again where it failed, and opens
the next round of a finished run by more rounds

A run begins when all devices have joined, a round closes when all devices that were drawn for it have
reported; after a deadline, at least ``min_clients`` are enough for either. Whoever comes too late takes part
in the next round; a device that is revoked is waited for no longer, and a round that was ready with it alone
collects again. A device that is quarantined while a round is trained has no part in that round, and is
drawn for no other until it is pardoned. A run whose devices have all left, and that no other may join, has
failed; the first device that is pardoned takes it up again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from gkt_core.errors import RoundClosedError, RoundError
from gkt_core.rounds.sampling import sample_clients
from gkt_core.wire.protocol import Task
from server_app.rounds.members import check_takes_part, held, held_task, without
from server_app.rounds.state import Phase, RunState


@dataclass(frozen=True, slots=True)
class SyncRounds:
    """The :class:`server_app.rounds.machine.Rounds` in which devices wait for each other."""

    def settled(self, state: RunState) -> RunState:
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

    def admitted(self, state: RunState, client_id: str) -> RunState:
        """Draw the device from the next round on."""
        return self.settled(state)

    def reported(self, state: RunState, client_id: str) -> RunState:
        """Close the round, if this was the last part of it."""
        reported = tuple(sorted((*state.reported, client_id)))
        return self.settled(dataclasses.replace(state, reported=reported))

    def revoked(self, state: RunState, client_id: str) -> RunState:
        """Drop the device's part of the round, unless the trainer has it already."""
        if state.phase not in (Phase.COLLECTING, Phase.READY, Phase.FAILED):
            # A round that is being trained keeps this device's part: it cannot be taken out of a network.
            return state
        left = _without_part(state, client_id)
        if state.phase is Phase.FAILED:
            # Perhaps by this device: the round is not taken up again with its part.
            return left
        return self.settled(dataclasses.replace(left, phase=Phase.COLLECTING))

    def quarantined(self, state: RunState, client_id: str, reason: str) -> RunState:
        """Drop the device's part of the round, and collect again if it was the only one."""
        state = _without_part(held(state, client_id, reason, state.reported), client_id)
        return state if state.reported else self.settled(dataclasses.replace(state, phase=Phase.COLLECTING))

    def claimed(self, state: RunState) -> RunState:
        """Train on all that was reported."""
        return dataclasses.replace(state, phase=Phase.TRAINING)

    def trained(self, state: RunState) -> RunState:
        """Open the next round, or finish after the last."""
        answered = tuple(sorted({**dict(state.answered), **self.parts(state)}.items()))
        held = {each: state.last_upload(each) for each in state.reported if state.last_upload(each)}
        views = tuple(sorted({**dict(state.views), **held}.items()))
        state = dataclasses.replace(state, answered=answered, views=views)
        if self.is_last(state):
            return dataclasses.replace(state, phase=Phase.FINISHED)
        return _opened(state, state.round_num + 1)

    def lost(self, state: RunState, client_ids: tuple[str, ...]) -> RunState:
        """Collect the parts again, from devices that are still members."""
        gone = set(client_ids)
        left = dataclasses.replace(
            state,
            phase=Phase.COLLECTING,
            selected=tuple(each for each in state.selected if each not in gone or each in state.clients),
            reported=tuple(each for each in state.reported if each not in gone),
            # Such a device sends its next upload, whichever round would have had one.
            uploads=tuple(pair for pair in state.uploads if pair[0] not in gone),
        )
        return self.settled(left)

    def reopened(self, state: RunState) -> RunState:
        """Open the round after the last."""
        return _opened(state, state.round_num + 1)

    def check_upload(self, state: RunState, client_id: str, round_num: int) -> None:
        """Refuse uploads that do not belong to the open round.

        Raises:
            RoundClosedError: The round went on without this device, which may join the next one.
            RoundError: The device has not joined, or the round is not open for it.
        """
        check_takes_part(state, client_id)
        if self.has_reported(state, client_id, round_num):
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

    def has_reported(self, state: RunState, client_id: str, round_num: int) -> bool:
        """Whether the device's part of the current round was taken."""
        return client_id in state.reported and round_num == state.round_num

    def is_working(self, state: RunState, client_id: str) -> bool:
        """Whether the device was drawn and has not reported."""
        waits = client_id in state.selected and client_id not in state.reported
        return waits and state.phase is Phase.COLLECTING

    def parts(self, state: RunState) -> dict[str, int]:
        """The devices that have reported, all with the current round."""
        return dict.fromkeys(state.reported, state.round_num)

    def uploads(self, state: RunState) -> dict[str, int]:
        """The devices that have reported, each with the upload that it said is to be trained on."""
        return {each: state.last_upload(each) or state.round_num for each in state.reported}

    def validation_parts(self, state: RunState) -> dict[str, int]:
        """The same as :meth:`uploads`."""
        return self.uploads(state)

    def is_last(self, state: RunState) -> bool:
        """Whether the current round is the last."""
        return state.round_num == state.rounds

    def shown_round(self, state: RunState) -> int:
        """The current round."""
        return state.round_num

    def share(self, state: RunState) -> tuple[int, int, int]:
        """Count rounds."""
        return state.round_num - 1, 1, state.rounds

    def staleness(self, state: RunState) -> dict[str, int]:
        """Nothing: all devices are in the same round."""
        return {}

    def task_for(self, state: RunState, client_id: str, retry_after_seconds: float) -> Task:
        """Train in rounds that the device is drawn for, wait in the others."""
        answered = state.last_answer(client_id)

        def task(action: str, reason: str, wait: float = 0.0) -> Task:
            return Task(action, state.round_num, answered, wait, reason)

        if (told := held_task(state, client_id, state.round_num, retry_after_seconds)) is not None:
            return told
        match state.phase:
            case Phase.JOINING:
                reason = f"{len(state.clients)} of {state.num_clients} devices have joined"
                return task("wait", reason, retry_after_seconds)
            case Phase.COLLECTING if self.is_working(state, client_id):
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


def _without_part(state: RunState, client_id: str) -> RunState:
    return dataclasses.replace(
        state, selected=without(state.selected, client_id), reported=without(state.reported, client_id)
    )


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
