"""What tools are told of a run, and what writes to one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Numbers = Mapping[str, float]


class Writer(Protocol):
    """Writes to one run in one tool.

    Attributes:
        run: By what the tool knows the run, for the next process; empty where the place says it.
    """

    run: str

    def write(self, step: int, numbers: Numbers) -> None:
        """Write the numbers of a round; when this returns they are kept."""

    def end(self, *, failed: bool) -> None:
        """Say that the run is over."""

    def close(self) -> None:
        """Let go of the tool; the run may go on in another process."""


@dataclass(frozen=True, slots=True)
class About:
    """What tools are told of a run at its beginning.

    Attributes:
        name: Of the run.
        settings: Hyper-parameters and the like, JSON-compatible.
    """

    name: str
    settings: Mapping[str, Any]
