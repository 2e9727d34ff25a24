"""Options of ``gkt profile engines``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import option
from gkt_core.networks import EDGE_LAYOUTS
from profiling.device.engines.names import NETWORK
from profiling.device.step_options import StepOptions


@dataclass(frozen=True, slots=True)
class EnginesOptions(StepOptions):
    """What to measure, and how long.

    Attributes:
        edge_network: What is trained.
        with_device_run: Whether to measure the memory of a whole gkt edge run; takes a server.
    """

    edge_network: str = option(NETWORK, flag="--model", choices=tuple(EDGE_LAYOUTS))
    with_device_run: bool = option(True, flag="--device-run/--no-device-run")
