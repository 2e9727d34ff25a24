"""``gkt profile trainer``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gkt_core.cli import emit_json
from gkt_core.config.run_config import CODECS
from gkt_core.errors import MissingExtraError
from gkt_core.files import write_atomically

_MEBIBYTE = 1 << 20


@click.command()
@click.option("--examples", "num_examples", default=512, show_default=True, help="Of all devices together.")
@click.option("--clients", "num_clients", default=4, show_default=True, help="Devices.")
@click.option("--epochs", "server_epochs", default=2, show_default=True, help="Of one turn.")
@click.option("--batch-size", default=64, show_default=True, help="Of the server.")
@click.option("--image-size", default=32, show_default=True, help="Pixels; a multiple of 4.")
@click.option("--codec", type=click.Choice(CODECS), default="fp32", show_default=True, help="Of the shards.")
@click.option("--repeats", default=5, show_default=True, help="Turns of each, after one to warm up.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option(
    "--memory-examples",
    default=128,
    show_default=True,
    help="Samples of the smaller of two runs whose memory is compared; 0 for none.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the report to this file, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the report to stdout as JSON.")
def trainer(*, out: Path | None, as_json: bool, **options: Any) -> None:
    """Measure the server's trainer.

    Its samples a second beside a bare PyTorch loop over the same tensors in memory, interleaved, and its
    memory with eight times as many devices. About five minutes.
    """
    try:
        from profiling.server.trainer.measure import TrainerOptions, measure_trainer  # noqa: PLC0415 - torch
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    chosen = TrainerOptions(**options)
    with Console(stderr=True).status("starting") as status:
        report = measure_trainer(chosen, status.update)
    if out is not None:
        write_atomically(out, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    if as_json:
        emit_json(report)
        return
    rows = {**report["samples_per_second"], "trainer / bare_loop": report["ratio"]}
    table = Table("samples/s", "median", "lowest", "highest")
    for name, found in rows.items():
        digits = 3 if "/" in name else 1
        values = (f"{found[key]:.{digits}f}" for key in ("median", "lowest", "highest"))
        table.add_row(name.replace("_", " "), *values)
    Console().print(table)
    if memory := report["memory"]:
        table = Table("peak memory, MiB", "features", "anonymous", "mapped")
        for name in ("small", "large"):
            found = memory[name]
            sizes = (found[key] for key in ("features_bytes", "anonymous_bytes", "mapped_bytes"))
            label = f"{found['num_clients']} devices, {found['num_examples']} samples"
            table.add_row(label, *(f"{size / _MEBIBYTE:.0f}" for size in sizes))
        Console().print(table)
    if out is not None:
        click.echo(f"written to {out}")
