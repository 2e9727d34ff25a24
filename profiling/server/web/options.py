"""Options of ``gkt profile ingest`` and ``gkt profile web``; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import CheckedOptions, option


@dataclass(frozen=True, slots=True)
class IngestOptions(CheckedOptions):
    """What is measured.

    Attributes:
        turns: Turns of each candidate, after one to warm up.
        bodies: Bodies of 4 MiB in a turn.
    """

    turns: int = option(8, low=1)
    bodies: int = option(24, low=1, high=200)


@dataclass(frozen=True, slots=True)
class WebOptions(IngestOptions):
    """What is measured.

    Attributes:
        large_mb: MiB of the large body.
    """

    turns: int = option(6, low=1)
    bodies: int = option(16, low=1, high=200)
    large_mb: int = option(256, low=1, high=1000)
