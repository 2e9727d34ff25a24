"""Options of ``gkt profile compare``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from gkt_core.config.dataclass_options import option
from profiling.counted.run_size import RunSize
from profiling.device.step_options import StepOptions


@dataclass(frozen=True, slots=True)
class CompareOptions(StepOptions):
    """What to compare, and how long.

    Attributes:
        steps: Measured turns: a step of each network and engine, several of short ones.
        is_pinned: Keep the process on as many cores as it has threads.
        run: The run whose totals are shown.
    """

    steps: int = option(40, low=1)
    warmup: int = option(2, low=0)
    is_pinned: bool = option(False, flag="--pin")
    run: RunSize = field(default_factory=RunSize)
