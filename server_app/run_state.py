"""Where a run stands, and what can happen to it; how the one follows from the other is in rounds.py."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


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
        num_clients: Devices that may join.
        rounds: Rounds in all.
        min_clients: Devices that are enough after a deadline.
        deadline_seconds: How long a round waits for its devices; 0 for as long as it takes.
        client_fraction: Share of the devices that is drawn for each round.
        seed: Of that draw.
        phase: What the run waits for.
        round_num: The current round, from 1; 0 while devices join.
        clients: Devices that joined, sorted.
        selected: Devices that were drawn for the current round, sorted.
        reported: Devices that closed their part of the current round, sorted.
        answered: Each device's last round with soft labels, of those that have any, sorted.
        revoked: Devices that may no longer take part, sorted.
        overdue: Whether the deadline of the current round has passed.
        error: Why the run failed.
    """

    num_clients: int
    rounds: int
    min_clients: int = 1
    deadline_seconds: float = 0.0
    client_fraction: float = 1.0
    seed: int = 0
    phase: Phase = Phase.JOINING
    round_num: int = 0
    clients: tuple[str, ...] = ()
    selected: tuple[str, ...] = ()
    reported: tuple[str, ...] = ()
    answered: tuple[tuple[str, int], ...] = ()
    revoked: tuple[str, ...] = ()
    overdue: bool = False
    error: str = ""

    def last_answer(self, client_id: str) -> int:
        """The last round whose soft labels this device was given; 0 for none."""
        return dict(self.answered).get(client_id, 0)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-compatible values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunState:
        """The inverse of :meth:`to_dict`."""
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, (list, tuple))}
        answered = tuple((client_id, round_num) for client_id, round_num in values["answered"])
        return cls(**{**values, **lists, "answered": answered, "phase": Phase(values["phase"])})


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
class DeadlinePassed:
    """A round (0: the time to join) has waited long enough."""

    round_num: int


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """The person who runs the server wants other deadlines."""

    min_clients: int
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class Revoked:
    """A device may no longer take part."""

    client_id: str


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


Event = Joined | Reported | DeadlinePassed | RulesChanged | Revoked | Claimed | Released | Trained | Failed
