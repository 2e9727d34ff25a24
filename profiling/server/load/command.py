"""``gkt profile load``."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gkt_core.cli import emit_json
from gkt_core.errors import ConfigError, MissingExtraError, RunFailedError
from gkt_core.files import write_atomically


@click.command()
@click.option("--devices", "num_devices", default=200, show_default=True, help="At once.")
@click.option("--rounds", default=8, show_default=True, help="At least 4, to tell what grows.")
@click.option("--examples", "num_examples", default=8, show_default=True, help="Of each device.")
@click.option("--image-size", default=8, show_default=True, help="Pixels; a multiple of 4.")
@click.option("--threads", "num_threads", default=1, show_default=True, help="Of the trainer.")
@click.option("--poll-seconds", default=1.0, show_default=True, help="As of gkt serve.")
@click.option("--limit-seconds", default=600.0, show_default=True, help="For all rounds.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the report to this file, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the report to stdout as JSON.")
def load(*, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """Hold one gkt serve against many devices at once, and watch its memory.

    The devices speak the whole protocol over sockets of their own, and train nothing. Fails if web or
    trainer process grow with the number of rounds. About three minutes.
    """
    if chosen["num_devices"] < 1 or chosen["rounds"] < 4 or chosen["num_examples"] < 2:
        raise ConfigError("expected at least 1 device, 4 rounds and 2 examples")
    try:
        from edge_export import ExportOptions, export_bundle  # noqa: PLC0415 - imports extras
        from profiling.server.load.measure import LoadOptions, measure_load  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    options = LoadOptions(**chosen)
    console = Console(stderr=True, highlight=False)

    def announce(line: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, soft_wrap=True)

    with tempfile.TemporaryDirectory(prefix="gkt-load-") as name:
        folder = Path(name)
        export_bundle(ExportOptions(image_size=options.image_size), folder / "artifacts", verify=False)
        report = measure_load(options, folder / "artifacts", folder, announce)
    if out is not None:
        write_atomically(out, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    if as_json:
        emit_json(report)
    else:
        _show(report)
        if out is not None:
            click.echo(f"written to {out}")
    if report["grows"]:
        raise RunFailedError(f"memory grows with the rounds: {', '.join(report['grows'])}")


def _show(report: dict[str, Any]) -> None:
    table = Table("PSS, MB", "before", "peak", "after", *map(str, range(1, report["settings"]["rounds"] + 1)))
    for name, memory in report["memory"].items():
        shown = [_megabytes(memory[when], key) for when, key in _COLUMNS]
        peaks = [f"{found['peak_pss_bytes'] / 1e6:.0f}" for found in memory["rounds"]]
        table.add_row(name, *shown, *peaks)
    Console(width=120).print(table)
    devices, seconds = report["devices"], report["seconds"]
    click.echo(
        f"{report['settings']['num_devices']} devices, {len(seconds['rounds'])} rounds in "
        f"{seconds['all']:.0f} s: {devices['num_requests']} requests, {devices['num_retries']} retries, the "
        f"longest took {devices['longest_request_seconds']:.1f} s"
    )


_COLUMNS = (("before", "pss_bytes"), ("during", "peak_pss_bytes"), ("after", "pss_bytes"))


def _megabytes(found: dict[str, int] | None, key: str) -> str:
    return "ended" if found is None else f"{found[key] / 1e6:.0f}"
