"""Options of ``gkt profile load``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.run_config import check_image_size


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How many devices, how often.

    Attributes:
        num_devices: Devices at once.
        rounds: Rounds of the run; what grows is told from the third on.
        num_examples: Training samples of each device.
        image_size: Pixels; a multiple of 4.
        num_threads: CPU threads of the trainer.
        poll_seconds: As of gkt serve.
        limit_seconds: Longer than that the rounds may not take.
    """

    num_devices: int = option(200, flag="--devices", low=1)
    rounds: int = option(8, low=4)
    num_examples: int = option(8, flag="--examples", low=2)
    image_size: int = 8
    num_threads: int = option(1, flag="--threads", low=1)
    poll_seconds: float = 1.0
    limit_seconds: float = option(600.0, low=1)

    def __post_init__(self) -> None:
        check_options(self)
        check_image_size(self.image_size)
