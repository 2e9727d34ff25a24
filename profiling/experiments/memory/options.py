"""Options of ``gkt profile memory``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.run_config import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE


@dataclass(frozen=True, slots=True)
class MemoryOptions(CheckedOptions):
    """What is measured.

    Attributes:
        sizes: Pixels; give it several times.
        largest_network: A network with a strided stem, measured at the largest of the sizes too.
        num_clients: Devices, each a gkt edge run, beside one gkt serve.
        num_classes: Number of classes.
        threads: CPU threads of each device and of the trainer.
    """

    sizes: tuple[int, ...] = option((32, 96, 224), flag="--size", low=MIN_IMAGE_SIZE, high=MAX_IMAGE_SIZE)
    largest_network: str = option("resnet8-stride4", flag="--strided")
    num_clients: int = option(3, flag="--clients", low=1)
    num_classes: int = option(3, low=2)
    threads: int = option(1, low=1)
