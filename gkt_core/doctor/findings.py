"""What a check says: that something is fine, could be better, is wrong or was skipped, and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gkt_core.doctor.options import DoctorOptions

FINE, ADVICE, WRONG, SKIPPED = "fine", "advice", "wrong", "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check looked at.

    Attributes:
        state: ``fine``, ``advice`` (works, and could be better), ``wrong``, or ``skipped``.
        text: What is there.
        remedy: What to do about it; empty where there is nothing to do.
        check: Which check; filled in by who runs it.
    """

    state: str
    text: str
    remedy: str = ""
    check: str = ""


# Looks at one thing, of what the options name; says nothing where they name nothing of its kind.
Check = Callable[[DoctorOptions], Iterator[Finding]]
Checks = Mapping[str, Check]


def fine(text: str) -> Finding:
    """Nothing to do."""
    return Finding(FINE, text)


def advice(text: str, remedy: str) -> Finding:
    """It works, and would work better otherwise."""
    return Finding(ADVICE, text, remedy)


def wrong(text: str, remedy: str) -> Finding:
    """It does not work, or soon will not."""
    return Finding(WRONG, text, remedy)


def skipped(text: str, remedy: str = "") -> Finding:
    """It could not be looked at here."""
    return Finding(SKIPPED, text, remedy)
