"""Options of ``gkt profile chaos``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.output_path import OUTPUT_FOLDER
from gkt_core.config.run_config import RunConfig, check_image_size


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """What is run, and how often it is disturbed.

    Attributes:
        num_strikes: Kills, stops, damaged files, full disks and moved clocks before the last round.
        seed: Of when what happens.
        num_clients: Devices.
        rounds: Rounds.
        server_epochs: The trainer's passes in a round.
        num_examples: Digits of all devices.
        image_size: Pixels.
        num_threads: CPU threads of trainer and devices each.
        limit_seconds: Longer than that no run may take.
        work_dir: A new folder for the runs, by default one below gkt-chaos/, named by the time.
    """

    num_strikes: int = option(20, flag="--strikes", low=1)
    seed: int = option(0, low=0)
    num_clients: int = option(3, flag="--clients", low=2)
    rounds: int = option(8, low=2)
    server_epochs: int = option(3, low=1)
    num_examples: int = option(360, flag="--examples", low=2)
    image_size: int = 8
    num_threads: int = option(1, flag="--threads", low=1)
    limit_seconds: float = option(900.0, low=1)
    work_dir: Path | None = option(None, click_type=OUTPUT_FOLDER)

    def __post_init__(self) -> None:
        check_options(self)
        check_image_size(self.image_size)

    @property
    def config(self) -> RunConfig:
        """Hyper-parameters of all runs."""
        return RunConfig(
            num_clients=self.num_clients,
            rounds=self.rounds,
            # So that devices are at work long enough to be hit.
            local_epochs=8,
            server_epochs=self.server_epochs,
            batch_size=16,
            server_batch_size=32,
            horizontal_flip=False,
            crop_padding=1,
            codec="uint8",
            shard_samples=16,
        )
