"""What happened to a run beside its rounds: changes, failures, what the trainer suffered.

The machine that notes has no clock: the store gives each new entry its time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHANGED, DAMAGED, FAILED, RESUMED, TRAINER = "changed", "damaged", "failed", "resumed", "trainer"
# How the note of a trained model begins that is damaged, together with what it could be made from.
MODEL_LOST = "the trained model, and "
# What a person did: paused, stopped or resumed the run, or let a device be forgotten.
OPERATOR = "operator"
# Of a kind; a trainer that dies every minute must not fill the state. Changes are kept, all of them.
_MOST_OF_A_KIND = 50


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One thing that happened.

    Attributes:
        kind: ``changed``, ``failed``, ``resumed``, ``trainer``, ``operator`` and so on.
        text: For a person.
        round_num: The round, or step, that the run was in.
        at: When, in seconds since the epoch; 0 until the store has kept it.
        changes: Of ``changed``: hyper-parameters by their names, before and after.
    """

    kind: str
    text: str
    round_num: int
    at: float = 0.0
    changes: tuple[tuple[str, float, float], ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HistoryEntry:
        """Rebuild an entry from what :func:`dataclasses.asdict` made of it, and JSON of that."""
        changes = tuple((name, before, after) for name, before, after in values["changes"])
        return cls(**{**values, "changes": changes})


History = tuple[HistoryEntry, ...]


def with_entry(history: History, entry: HistoryEntry) -> History:
    """Add an entry, and forget the oldest of its kind where there are too many."""
    same = [each for each in history if each.kind == entry.kind]
    if entry.kind != CHANGED and len(same) >= _MOST_OF_A_KIND:
        history = tuple(each for each in history if each is not same[0])
    return (*history, entry)


def stamped(history: History, now: float) -> History:
    """Give entries that have no time yet this one."""
    return tuple(each if each.at else dataclasses.replace(each, at=now) for each in history)


def first_value(history: History, name: str, value: float) -> float:
    """A hyper-parameter as the run began with it.

    Args:
        history: The run's.
        name: Of the hyper-parameter.
        value: What it is now.
    """
    befores = (before for entry in history for each, before, _ in entry.changes if each == name)
    return next(befores, value)
