"""``gkt profile ingest``."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from gkt_core.cli import emit_json
from gkt_core.errors import MissingExtraError
from gkt_core.files import write_atomically


@click.command()
@click.option("--turns", default=8, show_default=True, help="Turns of each candidate, after one to warm up.")
@click.option("--bodies", default=24, show_default=True, help="Bodies of 4 MiB in a turn.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the report to this file, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the report to stdout as JSON.")
def ingest(turns: int, bodies: int, out: Path | None, as_json: bool) -> None:
    """Measure what receiving features costs the server, beside nginx and a ceiling.

    Body bytes a CPU-second of the serving processes, kernel time included, for fp32 features in shards of
    4 MiB on the loopback interface, interleaved. Needs Debian's package nginx.
    """
    try:
        from profiling.server.web.ingest import IngestOptions, measure_ingest  # noqa: PLC0415 - several extras
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    options = IngestOptions(turns, bodies)
    with Console(stderr=True).status("starting") as status:
        report = measure_ingest(options, status.update)
    if out is not None:
        write_atomically(out, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    if as_json:
        emit_json(report)
        return
    table = Table("", "MB a CPU-second, median", "lowest", "highest")
    for name in ("ours", "nginx", "ceiling"):
        values = (report[name], *report["spread"][name])
        table.add_row(name, *(f"{value / 1e6:.0f}" for value in values))
    Console().print(table)
    click.echo(f"ours is {report['ratio']:.2f} of nginx and {report['ratio_to_ceiling']:.2f} of the ceiling")
