"""``gkt profile simulation``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gkt_core.cli import emit_json
from gkt_core.config import PRECISIONS
from gkt_core.errors import MissingExtraError
from gkt_core.files import write_atomically


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
@click.option("--out", type=click.Path(path_type=Path), help="Write the report to this file, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the report to stdout as JSON.")
def simulation(*, out: Path | None, as_json: bool, **options: Any) -> None:
    """Measure how fast gkt simulate trains.

    The clients' phase of many devices beside one device with all samples, and the devices' and the
    server's training beside bare PyTorch loops of the same networks, interleaved. Three to five minutes.
    """
    try:
        from profiling.simulation_speed import SpeedOptions, measure_speed  # noqa: PLC0415 - torch
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    chosen = SpeedOptions(**options)
    with Console(stderr=True).status("starting") as status:
        report = measure_speed(chosen, status.update)
    if out is not None:
        write_atomically(out, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    if as_json:
        emit_json(report)
        return
    table = Table("", "samples/s, median", "lowest", "highest")
    for name, found in report["candidates"].items():
        values = (found["samples_per_second"], found["lowest"], found["highest"])
        table.add_row(name.replace("_", " "), *(f"{value:.0f}" for value in values))
    ratios = Table("times, one over the other", "median", "lowest", "highest")
    for name, found in report["ratios"].items():
        ratios.add_row(
            name.replace("_", " "), *(f"{found[key]:.3f}" for key in ("median", "lowest", "highest"))
        )
    Console().print(table, ratios)
    if out is not None:
        click.echo(f"written to {out}")
