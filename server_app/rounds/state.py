"""Where a run stands, and the events that :func:`server_app.rounds.machine.advance` applies to it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from server_app.rounds.history import HistoryEntry


class Phase(StrEnum):
    """What a run waits for."""

    JOINING = "joining"
    COLLECTING = "collecting"
    READY = "ready"
    TRAINING = "training"
    FINISHED = "finished"
    FAILED = "failed"


# What a person may do to a run that goes on.
PAUSED, STOPPED = "paused", "stopped"


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
        quarantined: Devices whose uploads are not trained on, each with the reason, sorted.
        trusted: Devices that a person vouches for: they are checked no more, sorted.
        mode: ``sync`` or ``async``. In the latter, ``round_num`` counts the steps of the server, ``selected``
            are the devices that are working and ``reported`` those that wait for it.
        max_staleness: Rounds that a device may be ahead of the slowest (async).
        done: Rounds that each device has behind it, of those that have any, sorted (async).
        in_step: Devices of the step that the trainer has claimed, sorted (async).
        late: Devices that nobody waits for any more, but which may still report, sorted (async).
        uploads: The round of each device's upload that is trained on, where not every round has one, sorted.
        views: The round of the upload that each device's last soft labels answer, in such a run, sorted.
        history: What happened to the run beside its rounds, oldest first.
        halt: ``paused`` or ``stopped`` by a person; empty for neither.
        halt_reason: Why, in that person's words.
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
    quarantined: tuple[tuple[str, str], ...] = ()
    trusted: tuple[str, ...] = ()
    mode: str = "sync"
    max_staleness: int = 1
    done: tuple[tuple[str, int], ...] = ()
    in_step: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    uploads: tuple[tuple[str, int], ...] = ()
    views: tuple[tuple[str, int], ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    halt: str = ""
    halt_reason: str = ""

    @property
    def active(self) -> tuple[str, ...]:
        """Devices that may be drawn: those that joined and are not quarantined, sorted."""
        held = dict(self.quarantined)
        return tuple(client_id for client_id in self.clients if client_id not in held)

    def last_answer(self, client_id: str) -> int:
        """The last round whose soft labels this device was given; 0 for none."""
        return dict(self.answered).get(client_id, 0)

    def last_upload(self, client_id: str) -> int:
        """The round of the upload that is held of this device; 0 for none, or where each round has one."""
        return dict(self.uploads).get(client_id, 0)

    def answered_uploads(self) -> dict[str, int]:
        """The round of the upload that each device's last soft labels answer, of those that have any."""
        return {**dict(self.answered), **dict(self.views)}

    def to_dict(self) -> dict[str, Any]:
        """As JSON-compatible values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunState:
        """The inverse of :meth:`to_dict`."""
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, (list, tuple))}
        pairs = {
            name: tuple((client_id, value) for client_id, value in values.get(name, ())) for name in _PAIRS
        }
        history = tuple(HistoryEntry.from_dict(entry) for entry in values.get("history", ()))
        fields = {**values, **lists, **pairs, "history": history, "phase": Phase(values["phase"])}
        return cls(**fields)


_PAIRS = ("answered", "done", "quarantined", "uploads", "views")


@dataclass(frozen=True, slots=True)
class Joined:
    """A device introduced itself."""

    client_id: str


@dataclass(frozen=True, slots=True)
class Reported:
    """A device has closed its part of a round.

    In a run where not every round has an upload, ``upload_round`` says which one is to be trained on; 0 in
    all others.
    """

    client_id: str
    round_num: int
    upload_round: int = 0


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
class Quarantined:
    """What a device sent in the round that is being trained is far outside: it is not trained on."""

    client_id: str
    round_num: int
    reason: str


@dataclass(frozen=True, slots=True)
class Pardoned:
    """A person lets a quarantined device take part again."""

    client_id: str
    trusted: bool = False


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
    """This run gets no further by itself."""

    error: str


@dataclass(frozen=True, slots=True)
class Deserted:
    """The trainer has nobody to wait for; nothing, if somebody has come back meanwhile."""


@dataclass(frozen=True, slots=True)
class PartsLost:
    """What devices sent for the round that is being trained is damaged: it is asked for again.

    Attributes:
        round_num: The round, or step.
        reasons: Of each such device, what is damaged.
    """

    round_num: int
    reasons: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """A device's soft labels are damaged: it goes on without a teacher."""

    client_id: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The cause of a failure is gone: the run goes on where it failed."""


@dataclass(frozen=True, slots=True)
class Grown:
    """The person who runs the server wants more of the run, or other learning rates from here on.

    Attributes:
        rounds: Rounds in all, no fewer than before.
        num_clients: Devices that may join, no fewer than before.
        changes: Every hyper-parameter that changes, before and after, for the history.
    """

    rounds: int
    num_clients: int
    changes: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Noted:
    """Something happened to the run that its history should hold."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Halted:
    """A person wants devices and trainer to wait (``paused``), or to end for now (``stopped``)."""

    kind: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Continued:
    """A person lets a run go on that was paused or stopped."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nothing of a device that was revoked, or never joined, is to be kept."""

    client_id: str


Event = (
    Joined
    | Reported
    | DeadlinePassed
    | RulesChanged
    | Revoked
    | Quarantined
    | Pardoned
    | Claimed
    | Released
    | Trained
    | Failed
    | Deserted
    | PartsLost
    | AnswerLost
    | Resumed
    | Grown
    | Noted
    | Halted
    | Continued
    | Forgotten
)
