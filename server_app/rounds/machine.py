"""The state machine of a run: the one place that applies an event, and the one that asks for the mode."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from gkt_core.errors import RoundClosedError, RoundError
from gkt_core.wire.protocol import Task
from server_app.rounds import growth, members, operating
from server_app.rounds.asynchronous import AsyncRounds
from server_app.rounds.history import DAMAGED, FAILED
from server_app.rounds.state import (
    AnswerLost,
    Claimed,
    Continued,
    DeadlinePassed,
    Deserted,
    Event,
    Failed,
    Forgotten,
    Grown,
    Halted,
    Joined,
    Noted,
    Pardoned,
    PartsLost,
    Phase,
    Quarantined,
    Released,
    Reported,
    Resumed,
    Revoked,
    RulesChanged,
    RunState,
    Trained,
)
from server_app.rounds.sync import SyncRounds


class Rounds(Protocol):
    """What a mode decides: when a step is ready, who has a part in it, and what each device does next.

    All methods are pure functions of the state. Those that return a :class:`RunState` say what an event that
    fits the state leads to; :func:`advance` has checked that it does.
    """

    def settled(self, state: RunState) -> RunState:
        """Go on where nothing is left to wait for: after a deadline, or under other rules."""
        ...

    def admitted(self, state: RunState, client_id: str) -> RunState:
        """Go on with a device that has joined just now, or is pardoned."""
        ...

    def reported(self, state: RunState, client_id: str) -> RunState:
        """Close a device's part of its open round."""
        ...

    def revoked(self, state: RunState, client_id: str) -> RunState:
        """Go on without a device, which is no member any more."""
        ...

    def quarantined(self, state: RunState, client_id: str, reason: str) -> RunState:
        """Take a device's part out of the step that is being trained.

        Raises:
            RoundError: It has no part in that step.
        """
        ...

    def claimed(self, state: RunState) -> RunState:
        """Let the trainer begin with what is ready."""
        ...

    def trained(self, state: RunState) -> RunState:
        """Give the step's devices their answers, and go on or finish."""
        ...

    def lost(self, state: RunState, client_ids: tuple[str, ...]) -> RunState:
        """Await these devices' parts of the step that is being trained once more."""
        ...

    def reopened(self, state: RunState) -> RunState:
        """Begin the next round of a finished run that has been given more of them."""
        ...

    def check_upload(self, state: RunState, client_id: str, round_num: int) -> None:
        """Refuse uploads that nobody waits for.

        Raises:
            RoundClosedError: The device's round is over, and it may ask what is next.
            RoundError: The device has not joined, or the round is not open for it.
        """
        ...

    def has_reported(self, state: RunState, client_id: str, round_num: int) -> bool:
        """Whether the device's part of this round was taken, and waits or is trained on."""
        ...

    def is_working(self, state: RunState, client_id: str) -> bool:
        """Whether uploads of this device are awaited."""
        ...

    def parts(self, state: RunState) -> dict[str, int]:
        """Devices whose uploads the trainer takes next or has taken, each with the number of its round."""
        ...

    def uploads(self, state: RunState) -> dict[str, int]:
        """The same devices, each with the round of the upload that is trained on."""
        ...

    def validation_parts(self, state: RunState) -> dict[str, int]:
        """The devices whose validation samples count, each with the round that they were sent in."""
        ...

    def is_last(self, state: RunState) -> bool:
        """Whether the run is finished once the trainer is done with what it has."""
        ...

    def shown_round(self, state: RunState) -> int:
        """The round for people and for learning rates, from 1; 0 before the first."""
        ...

    def share(self, state: RunState) -> tuple[int, int, int]:
        """What of the run the trainer does next or does now, for learning rates that change with every step.

        Returns:
            How much is done before, how much this is, and how much there is in all.
        """
        ...

    def staleness(self, state: RunState) -> dict[str, int]:
        """How many rounds each device is ahead of the slowest; empty where all are in the same round."""
        ...

    def task_for(self, state: RunState, client_id: str, retry_after_seconds: float) -> Task:
        """What a device does next.

        Args:
            state: Where the run stands.
            client_id: The device.
            retry_after_seconds: When to ask again, if there is nothing to do.

        Raises:
            RoundError: The device has not joined.
        """
        ...


_SYNC, _ASYNC = SyncRounds(), AsyncRounds()


def rounds_of(state: RunState) -> Rounds:
    """The rounds of the run's mode."""
    return _ASYNC if state.mode == "async" else _SYNC


def advance(state: RunState, event: Event) -> RunState:
    """Apply one event; a repeated one (a device that joins or reports again) changes nothing.

    Raises:
        RoundError: The event does not fit the state.
    """
    after = operating.settled(_applied(state, event))
    has_failed = after.phase is Phase.FAILED and state.phase is not Phase.FAILED
    return growth.noted(after, FAILED, after.error) if has_failed else after


def _applied(state: RunState, event: Event) -> RunState:
    rounds = rounds_of(state)
    match event:
        case Joined(client_id):
            known = client_id in state.clients
            return state if known else rounds.admitted(members.joined(state, client_id), client_id)
        case Reported(client_id, round_num, upload_round):
            if part_is_closed(state, client_id, round_num):
                return state
            rounds.check_upload(state, client_id, round_num)
            return rounds.reported(members.holding(state, client_id, upload_round), client_id)
        case DeadlinePassed(round_num):
            overdue = dataclasses.replace(state, overdue=True)
            return rounds.settled(overdue) if members.may_be_late(state, round_num) else state
        case RulesChanged(min_clients, seconds):
            changed = dataclasses.replace(state, min_clients=min_clients, deadline_seconds=seconds)
            return rounds.settled(changed)
        case Revoked(client_id):
            gone = client_id in state.revoked
            return state if gone else rounds.revoked(members.revoked(state, client_id), client_id)
        case Quarantined(client_id, round_num, reason):
            members.check_fits(state, event, Phase.TRAINING, round_num)
            return rounds.quarantined(state, client_id, reason)
        case Pardoned(client_id, trusted):
            pardoned = members.taken_up(members.pardoned(state, client_id, trusted))
            return rounds.admitted(pardoned, client_id)
        case Claimed(round_num):
            members.check_fits(state, event, Phase.READY, round_num)
            return rounds.claimed(state)
        case Released():
            return members.released(state)
        case Trained(round_num):
            members.check_fits(state, event, Phase.TRAINING, round_num)
            return rounds.trained(state)
        case _:
            return _changed(state, event)


def _changed(
    state: RunState,
    event: Failed
    | Deserted
    | PartsLost
    | AnswerLost
    | Resumed
    | Grown
    | Noted
    | Halted
    | Continued
    | Forgotten,
) -> RunState:
    """Apply what does not belong to the way of a round: failures, damages, and what a person wants."""
    rounds = rounds_of(state)
    match event:
        case Failed() | Deserted():
            return members.stopped(state, event)
        case PartsLost(round_num, reasons):
            members.check_fits(state, event, Phase.TRAINING, round_num)
            return _without_parts(state, round_num, dict(reasons))
        case AnswerLost(client_id):
            left = tuple(pair for pair in state.answered if pair[0] != client_id)
            text = f"soft labels of {client_id}: it trains a round without them"
            return dataclasses.replace(growth.noted(state, DAMAGED, text), answered=left)
        case Resumed():
            return rounds.settled(growth.resumed(state))
        case Grown():
            grown = growth.grown(state, event)
            return rounds.reopened(grown) if growth.has_more(state, event) else rounds.settled(grown)
        case Noted(kind, text):
            return growth.noted(state, kind, text)
        case Halted() | Continued() | Forgotten():
            return operating.operated(state, event, rounds.parts(state))


def _without_parts(state: RunState, round_num: int, reasons: dict[str, str]) -> RunState:
    rounds = rounds_of(state)
    for client_id in reasons.keys() - rounds.parts(state).keys():
        raise RoundError(f"{client_id} has no part in round {round_num} that could be lost")
    for reason in reasons.values():
        state = growth.noted(state, DAMAGED, f"asked for again: {reason}")
    return rounds.lost(state, tuple(reasons))


def part_is_closed(state: RunState, client_id: str, round_num: int) -> bool:
    """Whether a report of this round changes nothing any more: it was taken, or it is too late."""
    if client_id not in state.clients or state.phase is Phase.FAILED:
        return False
    rounds = rounds_of(state)
    try:
        rounds.check_upload(state, client_id, round_num)
    except RoundClosedError:
        return True
    except RoundError:
        return rounds.has_reported(state, client_id, round_num)
    return False
