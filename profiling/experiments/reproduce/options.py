"""Options of ``gkt reproduce``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.output_path import OUTPUT_FOLDER
from gkt_core.config.precision import machine_precision
from gkt_core.config.run_config import AUTO, PRECISIONS
from gkt_core.tracking.options import TrackOptions
from profiling.experiments.reproduce.scales import SCALES, Scale

_DATA, _MACHINE = "Data", "This machine"


@dataclass(frozen=True, slots=True)
class ReproduceOptions(CheckedOptions):
    """Which runs of an experiment are wanted, and how they are computed.

    Attributes:
        scale_name: full: the paper's setting, for a GPU. cpu, cpu-small, small, mini: for two CPU cores.
            tiny: a smoke test.
        num_seeds: Seeds a cell.
        only: Only cells whose row or column holds this text, such as 'CIFAR-10 IID'.
        large_network: Only cells of this network.
        report_only: Run nothing; write the report of what is there.
        dry_run: Print the runs that are missing, and stop.
        out: Runs and reports of one scale; the same command goes on where a stopped one was.
        cifar10: cifar10 (downloaded), or PATH.npz.
        cifar100: cifar100 (downloaded), or PATH.npz.
        cinic10: Folder of CINIC-10's images.
        data_root: Where downloads are kept.
        device: What is trained on.
        precision: Of the large networks' training. auto: bf16 on a GPU or a CPU with AMX, else fp32.
        num_jobs: Runs at a time.
        num_threads: CPU threads of each.
        tracking: Where the rounds of all runs go.
    """

    scale_name: str = option("small", flag="--scale", choices=tuple(SCALES))
    num_seeds: int | None = option(
        None,
        flag="--seeds",
        low=1,
        shown_default="1 for cpu, 2 for small, 3 for full, 4 for cpu-small and mini",
    )
    only: str | None = None
    large_network: str | None = option(None, choices=("resnet56", "resnet110"), shown_default="both")
    report_only: bool = False
    dry_run: bool = False
    out: Path = option(Path("gkt-reproduction"), click_type=OUTPUT_FOLDER)
    cifar10: str = option("cifar10", group=_DATA)
    cifar100: str = option("cifar100", group=_DATA)
    cinic10: str = option("", group=_DATA)
    data_root: Path = option(Path("data"), group=_DATA)
    device: str = option("cpu", choices=("cpu", "cuda"), group=_MACHINE)
    precision: str = option(AUTO, choices=(AUTO, *PRECISIONS), group=_MACHINE)
    num_jobs: int | None = option(
        None, flag="--jobs", low=1, shown_default="a core each; 1 on a GPU", group=_MACHINE
    )
    num_threads: int | None = option(
        None, flag="--threads", low=1, shown_default="cores / jobs", group=_MACHINE
    )
    tracking: TrackOptions = field(default_factory=TrackOptions)

    @property
    def scale(self) -> Scale:
        """The scale of that name."""
        return SCALES[self.scale_name]

    @property
    def seeds(self) -> range:
        """Seeds of each cell."""
        return range(self.num_seeds or self.scale.num_seeds)

    @property
    def sources(self) -> dict[str, str]:
        """Where each dataset is; empty where it was not said."""
        return {"cifar10": self.cifar10, "cifar100": self.cifar100, "cinic10": self.cinic10}

    @property
    def jobs(self) -> int:
        """Runs at a time."""
        return self.num_jobs or (1 if self.device == "cuda" else os.cpu_count() or 1)

    @property
    def threads(self) -> int:
        """CPU threads of each run."""
        return self.num_threads or max(1, (os.cpu_count() or 1) // self.jobs)

    @property
    def chosen_precision(self) -> str:
        """Of the large networks' training, ``auto`` looked up."""
        return machine_precision(self.device)[0] if self.precision == AUTO else self.precision
