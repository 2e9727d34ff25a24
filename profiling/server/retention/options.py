"""Options of ``gkt profile retention``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import CheckedOptions, option


@dataclass(frozen=True, slots=True)
class RetentionOptions(CheckedOptions):
    """How long the run is.

    Attributes:
        rounds: That the run has.
        num_devices: Devices that report in each of them.
        looks: How often sizes and times are taken, evenly over the rounds.
    """

    rounds: int = option(10_000, low=2, high=1_000_000)
    num_devices: int = option(50, flag="--devices", low=1)
    looks: int = option(10, low=1)
