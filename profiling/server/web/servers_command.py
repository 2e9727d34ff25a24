"""``gkt profile web``."""

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
@click.option("--turns", default=6, show_default=True, help="Turns of each server, after one to warm up.")
@click.option("--bodies", default=16, show_default=True, help="Bodies of 4 MiB in a turn.")
@click.option("--large-mb", default=256, show_default=True, help="MiB of the large body.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the report to this file, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the report to stdout as JSON.")
def web(turns: int, bodies: int, large_mb: int, out: Path | None, as_json: bool) -> None:
    """Compare web servers for what devices do to one: large bodies, and links that stall.

    The server of gkt serve beside gunicorn as it comes, granian and waitress, on one application that hashes
    bodies, looks at them and writes them.
    """
    try:
        from profiling.server.web.servers import ServerOptions, measure_servers  # noqa: PLC0415 - several extras
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    options = ServerOptions(turns, bodies, large_mb)
    with Console(stderr=True).status("starting") as status:
        report = measure_servers(options, status.update)
    if out is not None:
        write_atomically(out, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    if as_json:
        emit_json(report)
        return
    table = Table("", "MB a CPU-second", "peak MB", "more for a large body, MB", "seventh client waits, s")
    for name, found in report["servers"].items():
        seconds = found["seventh_client_seconds"]
        table.add_row(
            name,
            f"{found['bytes_per_cpu_second'] / 1e6:.0f}",
            f"{found['peak_bytes'] / 1e6:.0f}",
            f"{found['large_body_bytes'] / 1e6:.1f}",
            "no answer" if seconds is None else f"{seconds:.2f}",
        )
    Console().print(table)
