"""Options of ``gkt profile simulation``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.run_config import PRECISIONS
from gkt_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SpeedOptions:
    """What is measured.

    Attributes:
        num_examples: Samples of all devices together.
        num_server_examples: Samples of the server's epochs, which are dearer.
        num_clients: Devices that are compared with one that has all samples.
        image_size: Pixels; a multiple of 4.
        batch_size: Of devices and server.
        repeats: Turns of each candidate at most, after one that does not count.
        max_seconds: After so long no further turn begins, once there have been two.
        threads: CPU threads.
        device: Where PyTorch computes.
        precision: Of the server network's training.
    """

    num_examples: int = option(2000, flag="--examples")
    num_server_examples: int = option(320, flag="--server-examples")
    num_clients: int = option(16, flag="--clients", low=1)
    image_size: int = 32
    batch_size: int = option(64, low=1)
    repeats: int = option(5, low=1)
    max_seconds: float = 240.0
    threads: int = option(1, low=1)
    device: str = option("cpu", choices=("cpu", "cuda"))
    precision: str = option("fp32", choices=PRECISIONS)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured: a ConfigError names the option and what is expected."""
        check_options(self)
        if self.num_examples < 2 * self.num_clients or self.num_server_examples < self.batch_size:
            raise ConfigError("too few examples: at least 2 a client, and a batch for the server")
