"""Options of ``gkt profile waiting``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.run_config import check_image_size


@dataclass(frozen=True, slots=True)
class WaitingOptions(CheckedOptions):
    """How many devices, and for how long.

    Attributes:
        num_devices: Devices that wait; one of them is a process of its own.
        seconds: They are watched, once alone and once beside pages; several times as long as a question is
            kept.
        num_pages: Open pages of the run, beside one gkt status --watch and one Prometheus.
        answers: Small requests on one kept connection.
        image_size: Pixels; a multiple of 4.
    """

    num_devices: int = option(200, flag="--devices", low=2)
    seconds: float = option(200.0, low=1, unit="seconds")
    num_pages: int = option(10, flag="--pages", low=1)
    answers: int = option(400, low=20)
    image_size: int = 8

    def __post_init__(self) -> None:
        CheckedOptions.__post_init__(self)
        check_image_size(self.image_size)
