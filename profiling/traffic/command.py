"""``gkt profile traffic``: what travels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gkt_core.config.run_config import CODECS
from gkt_core.errors import ConfigError, MissingExtraError
from gkt_core.networks import FULL_NETWORKS
from profiling.frame import emit_report, output_options
from profiling.frame.machine import describe_machine

SCHEMA = "gkt-profile-traffic/1"
NOT_MEASURED = (
    "accuracy: fewer uploads and coarser codecs cost some, which only a training can tell",
    "TCP, IP and TLS headers, retransmissions",
    "what FedAvg and split learning would gain from compression",
)


@click.command()
@click.option("--samples", type=int, help="Training samples of all devices.  [default: 50000]")
@click.option("--validation-samples", type=int, help="Validation samples of all devices.  [default: 0]")
@click.option("--clients", type=int, help="Devices.  [default: 16]")
@click.option("--rounds", type=int, help="Communication rounds; epochs of split learning.  [default: 200]")
@click.option("--uploads", type=int, help="Rounds after which features are uploaded; all by default.")
@click.option("--codec", type=click.Choice(CODECS), help="How features travel.  [default: fp32]")
@click.option(
    "--compression-ratio",
    type=float,
    help="Bytes sent over bytes encoded.  [default: 1, no compression]",
)
@click.option("--image-size", type=int, help="Pixels; a multiple of 4.  [default: 32]")
@click.option("--num-classes", type=int, help="Number of classes.  [default: 10]")
@click.option(
    "--network",
    type=click.Choice(FULL_NETWORKS),
    default="resnet56",
    show_default=True,
    help="What FedAvg's devices would train.",
)
@click.option(
    "--statistics/--no-statistics",
    default=True,
    show_default=True,
    help="Whether FedAvg sends running means and variances as well.",
)
@click.option(
    "--demo-dir",
    type=click.Path(path_type=Path),
    help="Folder of an earlier gkt demo (or --data-dir of gkt serve): its counted bytes beside the "
    "predicted ones. Whatever is not given is then that run's, its compression ratio included.",
)
@output_options
def traffic(
    *,
    network: str,
    statistics: bool,
    demo_dir: Path | None,
    outs: tuple[Path, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Bytes of FedGKT, split learning and FedAvg, by formula and from a real run.

    \b
    gkt profile traffic                                          CIFAR-10 as in the paper
    gkt profile traffic --uploads 4 --codec uint4 --compression-ratio 0.5
    gkt demo --meter-wire --out run && gkt profile traffic --demo-dir run
    """  # noqa: D301 - click looks for the character itself
    try:
        document = measure_traffic(given, network=network, statistics=statistics, demo_dir=demo_dir)
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    emit_report(document, outs, as_json)


def measure_traffic(
    given: dict[str, Any], *, network: str, statistics: bool, demo_dir: Path | None
) -> dict[str, Any]:
    """Make the document.

    Args:
        given: Options by name; None where the run's or the paper's value is taken.
        network: What FedAvg's devices would train.
        statistics: Whether FedAvg sends running statistics.
        demo_dir: A real run to compare with, or None.

    Raises:
        InputError: An option cannot be used, or there is no finished run in the folder.
    """
    from profiling.counted.network_cost import build_trainable, count_parameters  # noqa: PLC0415 - imports torch
    from profiling.counted.traffic import Deployment, predict  # noqa: PLC0415
    from profiling.traffic.measured import measure_demo  # noqa: PLC0415

    measured = None if demo_dir is None else measure_demo(demo_dir)
    values = {_FIELDS[name]: value for name, value in given.items() if value is not None}
    if measured is not None:
        values = _run_values(measured) | values
    values.setdefault("uploads", values.get("rounds", Deployment().rounds))
    num_classes = values.get("num_classes", Deployment().num_classes)
    built = build_trainable(network, num_classes)
    values["num_parameters"] = count_parameters(built)
    # Batch counters are whole numbers that nobody averages.
    buffers = sum(buffer.numel() for buffer in built.buffers() if buffer.is_floating_point())
    values["num_statistics"] = buffers if statistics else 0
    return {
        "schema": SCHEMA,
        "prediction": predict(Deployment(**values)),
        "measured": measured,
        "not_measured": [
            *NOT_MEASURED,
            *([] if measured else ["bytes of a real run: give --demo-dir"]),
            *(["HTTP heads of that run: gkt demo --meter-wire"] if measured and not measured["wire"] else []),
        ],
        "settings": {"network": network, "statistics": statistics},
        "machine": describe_machine(),
    }


_FIELDS = {
    "samples": "num_examples",
    "validation_samples": "num_validation_examples",
    "clients": "num_clients",
    "rounds": "rounds",
    "uploads": "uploads",
    "codec": "codec",
    "compression_ratio": "compression_ratio",
    "image_size": "image_size",
    "num_classes": "num_classes",
}


def _run_values(measured: dict[str, Any]) -> dict[str, Any]:
    """The run's own numbers as a deployment; bundle and model included."""
    counted = {kind["kind"]: kind["counted_bytes"] for kind in measured["kinds"]}
    once = counted.get("download/bundle", 0) + counted.get("download/model", 0)
    if measured["compression_ratio"] > 1:
        raise ConfigError("the run's shards grew under compression: give --compression-ratio 1")
    return {
        "num_examples": measured["num_examples"],
        "num_validation_examples": measured["num_validation_examples"],
        "num_clients": measured["num_clients"],
        "rounds": measured["rounds_run"],
        "codec": measured["codec"],
        "compression_ratio": measured["compression_ratio"],
        "image_size": measured["image_size"],
        "num_classes": measured["num_classes"],
        "device_once_bytes": once // measured["num_clients"],
    }
