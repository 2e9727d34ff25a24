"""``gkt profile simulation``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from gkt_core.config.run_config import PRECISIONS
from gkt_core.errors import MissingExtraError
from profiling.frame import emit_report, output_options

SCHEMA = "gkt-profile-simulation/1"
NOT_MEASURED = (
    "reading data, evaluation and checkpoints of a simulation",
    "other networks than ResNet-8 and ResNet-55",
    "any machine but this one",
)


@click.command()
@click.option("--examples", "num_examples", default=2000, show_default=True, help="Of all devices together.")
@click.option(
    "--server-examples", "num_server_examples", default=320, show_default=True, help="Of the server's epoch."
)
@click.option("--clients", "num_clients", default=16, show_default=True, help="Compared with one device.")
@click.option("--image-size", default=32, show_default=True, help="Pixels; a multiple of 4.")
@click.option("--batch-size", default=64, show_default=True, help="Of devices and server.")
@click.option("--repeats", default=5, show_default=True, help="Turns of each, after one to warm up.")
@click.option(
    "--max-seconds", default=240.0, show_default=True, help="No further turn after so long, but two at least."
)
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True)
@output_options
def simulation(*, outs: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Measure how fast gkt simulate trains.

    The clients' phase of many devices beside one device with all samples, and the devices' and the
    server's training beside bare PyTorch loops of the same networks, interleaved. Three to five minutes.
    """
    try:
        from profiling.experiments.speed.measure import SpeedOptions, measure_speed  # noqa: PLC0415 - torch
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    chosen = SpeedOptions(**options)
    with Console(stderr=True).status("starting") as status:
        report = measure_speed(chosen, status.update)
    emit_report({"schema": SCHEMA, "not_measured": list(NOT_MEASURED), **report}, outs, as_json)
