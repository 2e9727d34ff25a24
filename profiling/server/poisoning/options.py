"""Options of ``gkt profile poisoning``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.network_options import NetworkOptions


@dataclass(frozen=True, slots=True)
class PoisoningOptions(NetworkOptions, CheckedOptions):
    """What is measured.

    Attributes:
        dataset: As for gkt data split.
        limit: Use only this many training images.
        image_size: Scale images to this many pixels.
        data_root: Where downloads are kept.
        num_clients: Devices, one of which attacks.
        num_seeds: Runs of each attack.
        num_honest_seeds: Runs of honest devices over a skewed split.
        num_kind_seeds: Runs of each odd kind of honest devices: all of a kind, two among others, by turns.
        num_attack_seeds: Runs of each attack on devices that train by themselves: from the first round on,
            from the second, and among fixed cameras.
        dirichlet_alpha: Of the skewed split.
        rounds: Rounds of each run.
        server_epochs: Epochs of each round.
        unprotected: Whether every attack runs without quarantine too.
        threads: CPU threads; 0 for all cores.
    """

    dataset: str = "digits"
    limit: int | None = None
    image_size: int | None = None
    data_root: Path = Path("data")
    num_clients: int = option(8, flag="--clients", low=2)
    num_seeds: int = option(3, flag="--seeds", low=0)
    num_honest_seeds: int = option(6, flag="--honest-seeds", low=0)
    num_kind_seeds: int = option(3, flag="--kind-seeds", low=0)
    num_attack_seeds: int = option(1, flag="--attack-seeds", low=0)
    dirichlet_alpha: float = 0.1
    rounds: int = option(3, low=1)
    server_epochs: int = option(4, low=1)
    unprotected: bool = option(True, flag="--unprotected/--protected-only")
    threads: int = option(0, low=0)
