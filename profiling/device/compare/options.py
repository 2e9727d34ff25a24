"""Options of ``gkt profile compare``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.run_config import check_image_size
from gkt_core.networks import EDGE_NETWORKS, check_network
from profiling.counted.run_size import RunSize
from profiling.device.compare.ratios import BASE


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What to compare, and how long.

    Attributes:
        num_classes: Width of the logits.
        image_size: Pixels; a multiple of 4.
        batch_size: Samples in a timed step.
        steps: Measured turns: a step of each network and engine, several of short ones.
        warmup: Steps of each before measuring.
        threads: Threads of either engine.
        is_pinned: Keep the process on as many cores as it has threads.
        with_memory: Whether to measure peak memory, each in a fresh process.
        run: The run whose totals are shown.
    """

    num_classes: int = 10
    image_size: int = 32
    # Batch normalisation needs two samples for a variance worth its name.
    batch_size: int = option(64, low=2)
    steps: int = option(40, low=1)
    warmup: int = option(2, low=0)
    threads: int = option(1, low=1)
    is_pinned: bool = option(False, flag="--pin")
    with_memory: bool = option(True, flag="--memory/--no-memory")
    run: RunSize = field(default_factory=RunSize)

    def __post_init__(self) -> None:
        """Refuse values that nothing can be measured with.

        Raises:
            ConfigError: Names the option, its value and what is expected.
        """
        check_options(self)
        check_network(BASE, EDGE_NETWORKS, self.num_classes)
        check_image_size(self.image_size)
