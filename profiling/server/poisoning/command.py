"""``gkt profile poisoning``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gkt_core.cli import emit_json
from gkt_core.config.network_options import network_options
from gkt_core.errors import GKTError, MissingExtraError
from gkt_core.files import write_atomically


@click.command()
@click.option("--dataset", default="digits", show_default=True, help="As for gkt data split.")
@click.option("--limit", type=int, help="Use only this many training images.")
@click.option("--image-size", type=int, help="Scale images to this many pixels.")
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--clients", "num_clients", default=8, show_default=True, help="Devices, one of which attacks.")
@click.option("--seeds", "num_seeds", default=3, show_default=True, help="Runs of each attack.")
@click.option(
    "--honest-seeds",
    "num_honest_seeds",
    default=6,
    show_default=True,
    help="Runs of honest devices over a skewed split.",
)
@click.option("--dirichlet-alpha", default=0.1, show_default=True, help="Of the skewed split.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of each run.")
@click.option("--server-epochs", default=4, show_default=True, help="Of each round.")
@click.option(
    "--unprotected/--protected-only", default=True, show_default=True, help="Run attacks unwatched too."
)
@click.option("--threads", default=0, show_default=True, help="CPU threads; 0 for all cores.")
@network_options
@click.option("--out", type=click.Path(path_type=Path), help="Write the report to this file, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the report to stdout as JSON.")
def poisoning(*, out: Path | None, as_json: bool, **options: Any) -> None:
    """Measure what a poisoned device costs, and whether honest ones are left alone.

    One of --clients devices sends random features, shifted labels or hostile logits, on a uniform split,
    with the server's quarantine and without; then honest devices on a skewed split. Accuracies are of the
    other devices' combined models on the test images. Exit code 1: an attack costs more than 2 points, or an
    honest device was quarantined.
    """
    try:
        from profiling.server.poisoning.measure import (  # noqa: PLC0415 - torch
            PoisoningOptions,
            failures,
            measure_poisoning,
        )
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    chosen = PoisoningOptions(**options)
    with Console(stderr=True).status("starting") as status:
        report = measure_poisoning(chosen, status.update)
    if out is not None:
        write_atomically(out, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    if as_json:
        emit_json(report)
    else:
        Console().print(_table(report))
        click.echo(json.dumps(report["summary"], indent=2))
    if found := failures(report):
        raise GKTError("; ".join(found))


def _table(report: dict[str, Any]) -> Table:
    table = Table("split", "seed", "attack", "quarantine", "test accuracy", "points lost", "quarantined")
    for run in report["runs"]:
        lost = f"{run['lost_points']:.2f}" if "lost_points" in run else ""
        named = [f"{name} in round {each['round_num']}" for name, each in run["quarantined"].items()]
        table.add_row(
            run["partition"],
            str(run["seed"]),
            run["attack"],
            "on" if run["quarantine"] else "off",
            f"{run['accuracy']:.4f}",
            lost,
            ", ".join(named),
        )
    return table
