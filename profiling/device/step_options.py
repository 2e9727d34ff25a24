"""The options of all comparisons of training steps; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.run_config import check_image_size
from gkt_core.networks import check_num_classes


@dataclass(frozen=True, slots=True)
class StepOptions:
    """What to measure, and how long.

    Attributes:
        num_classes: Width of the logits.
        image_size: Pixels; a multiple of 4.
        batch_size: Samples in a timed step.
        steps: Measured steps of each candidate.
        warmup: Steps of each before measuring.
        threads: Threads of every candidate.
        with_memory: Whether to measure peak memory, each in a fresh process.
    """

    num_classes: int = 10
    image_size: int = 32
    # Batch normalisation needs two samples for a variance worth its name.
    batch_size: int = option(64, low=2)
    steps: int = option(30, low=1)
    warmup: int = option(3, low=0)
    threads: int = option(1, low=1)
    with_memory: bool = option(True, flag="--memory/--no-memory")

    def __post_init__(self) -> None:
        """Refuse what the networks do not take: a ConfigError names the value and what is expected."""
        check_options(self)
        check_num_classes(self.num_classes)
        check_image_size(self.image_size)
