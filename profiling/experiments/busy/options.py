"""Options of ``gkt profile busy``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import CheckedOptions, option

# The name, in a report, of the way to wait that gkt itself chooses.
CHOSEN = "as_gkt_sets_it"


@dataclass(frozen=True, slots=True)
class BusyOptions(CheckedOptions):
    """What is measured.

    Attributes:
        batch_size: Of the server; the demo's by default.
        image_size: Pixels; a multiple of 4.
        seconds: How long a process trains alone, and then as long beside a busy core.
        repeats: Turns of each way to wait.
        threads: CPU threads; 0 for all cores.
        demos: Times that a short demo is run, alone and beside a busy core; 0 for none.
    """

    batch_size: int = option(32, low=2)
    image_size: int = option(16, low=8, multiple_of=4)
    seconds: float = option(10.0, above=0, unit="seconds")
    repeats: int = option(5, low=1)
    threads: int = option(0, low=0)
    demos: int = option(3, low=0)
