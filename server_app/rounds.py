"""The rounds of a run as a pure state machine: no Flask, no torch, no database.

::

    joining --all joined--> collecting --all reported--> ready --claimed--> training
                                ^                          ^                    |
                                |                          +----- released -----+
                                +---- trained, rounds left ---------------------+
                                                          finished <-- trained, last round
    failed <-- from every phase but finished

Every event is either applied, or refused with a :class:`RoundError` that leaves the state as it was.
Repeated events (a device that joins or reports again after a lost answer) change nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gkt_core.errors import RoundError
from gkt_core.protocol import Task


class Phase(StrEnum):
    """What a run waits for."""

    JOINING = "joining"
    COLLECTING = "collecting"
    READY = "ready"
    TRAINING = "training"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands.

    Attributes:
        num_clients: Devices that must join, and report in every round.
        rounds: Rounds in all.
        phase: What the run waits for.
        round_num: The current round, from 1; 0 while devices join.
        clients: Devices that joined, sorted.
        reported: Devices that closed their part of the current round, sorted.
        error: Why the run failed.
    """

    num_clients: int
    rounds: int
    phase: Phase = Phase.JOINING
    round_num: int = 0
    clients: tuple[str, ...] = ()
    reported: tuple[str, ...] = ()
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON-compatible values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunState:
        """The inverse of :meth:`to_dict`."""
        return cls(
            **{
                **values,
                "phase": Phase(values["phase"]),
                "clients": tuple(values["clients"]),
                "reported": tuple(values["reported"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Joined:
    """A device introduced itself."""

    client_id: str


@dataclass(frozen=True, slots=True)
class Reported:
    """A device has uploaded all its shards of a round."""

    client_id: str
    round_num: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """The trainer began to train on a round."""

    round_num: int


@dataclass(frozen=True, slots=True)
class Released:
    """The trainer gave a round back untrained, or died while training on it."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The trainer published the soft labels of a round."""

    round_num: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing can bring this run to its end any more."""

    error: str


Event = Joined | Reported | Claimed | Released | Trained | Failed


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
        case Claimed(round_num):
            _require(state, event, Phase.READY, round_num)
            return dataclasses.replace(state, phase=Phase.TRAINING)
        case Released():
            if state.phase is not Phase.TRAINING:
                return state
            return dataclasses.replace(state, phase=Phase.READY)
        case Trained(round_num):
            _require(state, event, Phase.TRAINING, round_num)
            if round_num == state.rounds:
                return dataclasses.replace(state, phase=Phase.FINISHED)
            return dataclasses.replace(state, phase=Phase.COLLECTING, round_num=round_num + 1, reported=())
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
    if state.phase is not Phase.JOINING:
        raise RoundError(
            f"{client_id} cannot join: all {state.num_clients} devices of this run have joined. "
            "Was it started under another --client-id or --state-dir before?"
        )
    clients = tuple(sorted((*state.clients, client_id)))
    if len(clients) < state.num_clients:
        return dataclasses.replace(state, clients=clients)
    return dataclasses.replace(state, clients=clients, phase=Phase.COLLECTING, round_num=1)


def check_upload(state: RunState, client_id: str, round_num: int) -> None:
    """Refuse uploads that do not belong to the open round.

    Raises:
        RoundError: The device has not joined, or the round is not open for it.
    """
    if client_id not in state.clients:
        raise RoundError(f"{client_id} has not joined this run")
    if state.phase is not Phase.COLLECTING or state.round_num != round_num:
        raise RoundError(
            f"round {round_num} is not open: the run is {state.phase} in round {state.round_num}"
        )
    if client_id in state.reported:
        raise RoundError(f"{client_id} has closed its part of round {round_num}")


def _reported(state: RunState, client_id: str, round_num: int) -> RunState:
    repeated = client_id in state.clients and (
        round_num < state.round_num or (round_num == state.round_num and client_id in state.reported)
    )
    if repeated and round_num >= 1:
        return state
    check_upload(state, client_id, round_num)
    reported = tuple(sorted((*state.reported, client_id)))
    everybody = reported == state.clients
    return dataclasses.replace(state, reported=reported, phase=Phase.READY if everybody else Phase.COLLECTING)


def task_for(state: RunState, client_id: str, retry_after_seconds: float) -> Task:
    """What a device does next.

    Args:
        state: Where the run stands.
        client_id: The device.
        retry_after_seconds: When to ask again, if there is nothing to do.

    Raises:
        RoundError: The device has not joined.
    """
    if client_id not in state.clients:
        raise RoundError(f"{client_id} has not joined this run")

    def task(action: str, reason: str, wait: float = 0.0) -> Task:
        return Task(action, state.round_num, max(0, state.round_num - 1), wait, reason)

    match state.phase:
        case Phase.JOINING:
            reason = f"{len(state.clients)} of {state.num_clients} devices have joined"
            return task("wait", reason, retry_after_seconds)
        case Phase.COLLECTING if client_id not in state.reported:
            return task("train", f"round {state.round_num} of {state.rounds}")
        case Phase.COLLECTING:
            reason = f"{len(state.reported)} of {state.num_clients} devices have reported"
            return task("wait", reason, retry_after_seconds)
        case Phase.READY | Phase.TRAINING:
            return task("wait", f"the server trains on round {state.round_num}", retry_after_seconds)
        case Phase.FINISHED:
            return task("finish", "the run is finished")
        case Phase.FAILED:
            return task("stop", state.error)
