"""Options of ``gkt profile traffic``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.run_config import CODECS
from gkt_core.networks import EDGE_LAYOUTS, FULL_NETWORKS


@dataclass(frozen=True, slots=True)
class TrafficOptions(CheckedOptions):
    """What to count: a :class:`~profiling.counted.traffic.Deployment`, None is the run's or the paper's.

    Numbers are checked once the run is known.

    Attributes:
        num_examples: Training samples of all devices.
        num_validation_examples: Validation samples of all devices.
        num_clients: Devices.
        rounds: Communication rounds; epochs of split learning.
        uploads: Rounds after which features are uploaded.
        codec: How features travel.
        compression_ratio: Bytes sent over bytes encoded.
        image_size: Pixels; a multiple of 4.
        edge_network: What FedGKT's devices train; its tap is what is uploaded.
        num_classes: Number of classes.
        network: What FedAvg's devices would train.
        statistics: Whether FedAvg sends running means and variances as well.
        demo_dir: Folder of an earlier gkt demo (or --data-dir of gkt serve): its counted bytes beside the
            predicted ones. Whatever is not given is then that run's, its compression ratio included.
    """

    num_examples: int | None = option(None, flag="--samples", shown_default="50000")
    num_validation_examples: int | None = option(None, flag="--validation-samples", shown_default="0")
    num_clients: int | None = option(None, flag="--clients", shown_default="16")
    rounds: int | None = option(None, shown_default="200")
    uploads: int | None = option(None, shown_default="all")
    codec: str | None = option(None, choices=CODECS, shown_default="fp32")
    compression_ratio: float | None = option(None, shown_default="1, no compression")
    image_size: int | None = option(None, shown_default="32")
    edge_network: str | None = option(
        None, flag="--model", choices=tuple(EDGE_LAYOUTS), shown_default="resnet8"
    )
    num_classes: int | None = option(None, shown_default="10")
    network: str = option("resnet56", choices=FULL_NETWORKS)
    statistics: bool = True
    demo_dir: Path | None = None
