"""Options of ``gkt profile trainer``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.run_config import CODECS, check_image_size
from gkt_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TrainerOptions:
    """What is measured.

    Attributes:
        num_examples: Samples of all devices together.
        num_clients: Devices.
        server_epochs: Epochs of one turn; a checkpoint is written between two of them.
        batch_size: Of the server.
        image_size: Pixels; a multiple of 4.
        codec: How the stored features are encoded; the bare loop has them decoded in memory.
        repeats: Turns of each, after one to warm up.
        threads: CPU threads.
        memory_examples: Samples of the smaller of two runs whose memory is compared; 0 for none.
    """

    num_examples: int = option(512, flag="--examples")
    num_clients: int = option(4, flag="--clients", low=1)
    server_epochs: int = option(2, flag="--epochs", low=1)
    batch_size: int = option(64, low=2)
    image_size: int = 32
    codec: str = option("fp32", choices=CODECS)
    repeats: int = option(5, low=1)
    threads: int = option(1, low=1)
    memory_examples: int = 128

    def __post_init__(self) -> None:
        check_options(self)
        check_image_size(self.image_size)
        if self.num_examples < 2 * self.num_clients:
            raise ConfigError(f"--examples is {self.num_examples}, expected at least 2 a client")
        # With batches of another size the smaller run would need less for that reason alone.
        if self.memory_examples and self.memory_examples < 2 * self.batch_size:
            raise ConfigError("--memory-examples must be at least two batches, or 0 for no such measurement")
