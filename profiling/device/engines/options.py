"""Options of ``gkt profile engines``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.run_config import check_image_size
from gkt_core.networks import EDGE_NETWORKS, check_network

NETWORK = "resnet8"


@dataclass(frozen=True, slots=True)
class EnginesOptions:
    """What to measure, and how long.

    Attributes:
        batch_size: Samples in a timed step.
        image_size: Pixels; a multiple of 4.
        num_classes: Width of the logits.
        steps: Measured steps of each candidate.
        warmup: Steps of each before measuring.
        threads: Threads of every candidate.
        with_memory: Whether to measure peak memory, each in a fresh process.
        with_device_run: Whether to measure the memory of a whole gkt edge run; takes a server.
    """

    batch_size: int = option(64, low=2)
    image_size: int = 32
    num_classes: int = 10
    steps: int = option(30, low=1)
    warmup: int = option(3, low=0)
    threads: int = option(1, low=1)
    with_memory: bool = option(True, flag="--memory/--no-memory")
    with_device_run: bool = option(True, flag="--device-run/--no-device-run")

    def __post_init__(self) -> None:
        """Refuse values that nothing can be measured with.

        Raises:
            ConfigError: Names the option, its value and what is expected.
        """
        check_options(self)
        check_network(NETWORK, EDGE_NETWORKS, self.num_classes)
        check_image_size(self.image_size)
