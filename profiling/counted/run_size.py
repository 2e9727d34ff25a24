"""The run whose totals ``gkt profile compare`` shows; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import CheckedOptions, option

_GROUP = "Totals of a run"


@dataclass(frozen=True, slots=True)
class RunSize(CheckedOptions):
    """A run to take totals of.

    Attributes:
        samples: Training samples of all devices together.
        clients: Devices.
        rounds: Communication rounds.
        local_epochs: E_c: passes of a device over its samples in a round.
        server_epochs: E_s: passes of FedGKT's server over the features in a round.
    """

    samples: int = option(50_000, low=1, group=_GROUP)
    clients: int = option(16, low=1, group=_GROUP)
    rounds: int = option(200, low=1, group=_GROUP)
    local_epochs: int = option(1, low=1, group=_GROUP)
    server_epochs: int = option(20, low=1, group=_GROUP)
