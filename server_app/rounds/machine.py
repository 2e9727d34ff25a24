"""The state machine of a run's mode: of rounds (``sync``) or without rounds (``async``).

Both have the same functions, and nobody but this module asks which one it is.
"""

from __future__ import annotations

from types import ModuleType
from typing import cast

from gkt_core.wire.protocol import Task
from server_app.rounds import asynchronous as async_rounds
from server_app.rounds import sync as rounds
from server_app.rounds.state import Event, RunState


def _machine(state: RunState) -> ModuleType:
    return async_rounds if state.mode == "async" else rounds


def advance(state: RunState, event: Event) -> RunState:
    """Apply one event; :class:`gkt_core.errors.RoundError` if it does not fit the state."""
    return cast(RunState, _machine(state).advance(state, event))


def check_upload(state: RunState, client_id: str, round_num: int) -> None:
    """Refuse uploads that nobody waits for with a :class:`gkt_core.errors.RoundError`."""
    _machine(state).check_upload(state, client_id, round_num)


def part_is_closed(state: RunState, client_id: str, round_num: int) -> bool:
    """Whether a report of this round changes nothing any more: it was taken, or it is too late."""
    return bool(_machine(state).part_is_closed(state, client_id, round_num))


def has_reported(state: RunState, client_id: str, round_num: int) -> bool:
    """Whether the device's part of this round was taken, and waits or is trained on."""
    return bool(_machine(state).has_reported(state, client_id, round_num))


def is_working(state: RunState, client_id: str) -> bool:
    """Whether uploads of this device are awaited."""
    return bool(_machine(state).is_working(state, client_id))


def parts(state: RunState) -> dict[str, int]:
    """The devices whose uploads the trainer takes next or has taken, each with its number of the round."""
    return cast(dict[str, int], _machine(state).parts(state))


def validation_parts(state: RunState) -> dict[str, int]:
    """Whose validation samples count, each with the round that they are of."""
    return cast(dict[str, int], _machine(state).validation_parts(state))


def is_last(state: RunState) -> bool:
    """Whether the run is finished once the trainer is done with what it has."""
    return bool(_machine(state).is_last(state))


def shown_round(state: RunState) -> int:
    """The round for people and for learning rates, from 1; 0 before the first."""
    return int(_machine(state).shown_round(state))


def staleness(state: RunState) -> dict[str, int]:
    """How many rounds each device is ahead of the slowest; nothing where all are in the same round."""
    return cast(dict[str, int], _machine(state).staleness(state))


def task_for(state: RunState, client_id: str, retry_after_seconds: float) -> Task:
    """What a device does next; :class:`gkt_core.errors.RoundError` if it has not joined."""
    return cast(Task, _machine(state).task_for(state, client_id, retry_after_seconds))
