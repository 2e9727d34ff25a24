"""What was taken, what was changed on the way, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_MOST_NAMED = 5


@dataclass(slots=True)
class ReadingReport:
    """Collects what happened while images were read; a person reads it in the end.

    Attributes:
        taken: Images that were taken.
        converted: How many images, or arrays, were changed, by what was done.
        left_out: Files that were not taken, by reason.
        refused: Those of them that look like images, which ``--strict`` refuses.
        notes: What else a person should know.
    """

    taken: int = 0
    converted: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, name: str) -> None:
        """Remember a file that was not taken."""
        self.left_out.setdefault(reason, []).append(name)

    def refuse(self, reason: str, name: str) -> None:
        """Remember an image that was not taken."""
        self.leave_out(reason, name)
        self.refused.setdefault(reason, []).append(name)

    @property
    def num_left_out(self) -> int:
        """Files that were not taken."""
        return sum(map(len, self.left_out.values()))

    def __bool__(self) -> bool:
        return bool(self.taken or self.converted or self.left_out or self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON-compatible values, every file that was left out by name."""
        return {
            "taken": self.taken,
            "converted": dict(sorted(self.converted.items())),
            "left_out": {reason: sorted(names) for reason, names in sorted(self.left_out.items())},
            "notes": list(self.notes),
        }

    def lines(self) -> Iterator[str]:
        """Say it in lines, with the first few files of each reason."""
        yield f"images taken: {self.taken}; files left out: {self.num_left_out}"
        for what, num in sorted(self.converted.items()):
            yield f"  converted, {num}: {what}"
        for reason, names in sorted(self.left_out.items()):
            yield f"  left out, {len(names)}: {reason}: {named(names)}"
        for note in self.notes:
            yield f"  {note}"


def counted(num: int, noun: str) -> str:
    """Say how many: ``1 image``, ``2 images``."""
    return f"{num:,} {noun}" + ("" if num == 1 else "s")


def are(num: int) -> str:
    """Say the verb that goes with a number."""
    return "is" if num == 1 else "are"


def named(names: list[str]) -> str:
    """Name the first few, and count the others."""
    shown = ", ".join(sorted(names)[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"{shown} and {more} more (--json lists all)" if more > 0 else shown
