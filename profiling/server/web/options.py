"""Options of ``gkt profile ingest`` and ``gkt profile web``; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import check_options, option


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """What is measured.

    Attributes:
        turns: Turns of each candidate, after one to warm up.
        bodies: Bodies of 4 MiB in a turn.
    """

    turns: int = option(8, low=1)
    bodies: int = option(24, low=1, high=200)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class WebOptions:
    """What is measured.

    Attributes:
        turns: Turns of each server, after one to warm up.
        bodies: Bodies of 4 MiB in a turn.
        large_mb: MiB of the large body.
    """

    turns: int = option(6, low=1)
    bodies: int = option(16, low=1, high=200)
    large_mb: int = option(256, low=1, high=1000)

    def __post_init__(self) -> None:
        check_options(self)
