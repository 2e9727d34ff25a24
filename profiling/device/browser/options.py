"""Options of ``gkt profile browser``."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import CheckedOptions, option


@dataclass(frozen=True, slots=True)
class BrowserOptions(CheckedOptions):
    """What to measure, and how long.

    Attributes:
        edge_network: The network that is trained.
        num_classes: Width of the logits.
        image_size: Pixels; a multiple of 4.
        batch_size: Samples in a step.
        steps: Measured steps of each in a turn.
        warmup: Steps of each before those.
        turns: How often each has its turn, in a fresh process each time.
        threads: CPU threads of each engine.
    """

    edge_network: str = option("resnet8", flag="--model")
    num_classes: int = option(10, low=2)
    image_size: int = option(32, low=4)
    batch_size: int = option(64, low=2, high=65536)
    steps: int = option(15, low=1, high=10**6)
    warmup: int = option(3, low=0, high=10**6)
    turns: int = option(3, low=1, high=1000)
    threads: int = option(1, low=1, high=256)
