"""``gkt profile``: what training costs a device, beside the networks it cannot train."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
from rich.console import Console

from gkt_core.cli import emit_json
from gkt_core.errors import ConfigError, MissingExtraError
from gkt_core.files import write_atomically
from profiling.compare import CompareOptions, compare_networks
from profiling.simulation_speed_command import simulation


@click.group()
def profile() -> None:
    """Measure what training costs a device."""


profile.add_command(simulation)


@profile.command()
@click.option("--num-classes", default=10, show_default=True, help="Number of classes.")
@click.option("--image-size", default=32, show_default=True, help="Pixels; a multiple of 4.")
@click.option("--batch-size", default=64, show_default=True, help="Samples in a timed step.")
@click.option("--steps", default=10, show_default=True, help="Measured steps of each network and engine.")
@click.option("--warmup", default=2, show_default=True, help="Steps of each before measuring.")
@click.option("--threads", default=1, show_default=True, help="Threads of either engine.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the report to this file, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the report to stdout as JSON.")
def compare(
    *,
    num_classes: int,
    image_size: int,
    batch_size: int,
    steps: int,
    warmup: int,
    threads: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare the edge networks with ResNet-56 and ResNet-110.

    Counts parameters, MACs and FLOPs, and times full training steps on this machine: ResNet-8 on ONNX
    Runtime and PyTorch, the large networks on PyTorch, interleaved. Half a minute to a minute on one core.
    """
    options = CompareOptions(
        num_classes=num_classes,
        image_size=image_size,
        batch_size=batch_size,
        steps=steps,
        warmup=warmup,
        threads=threads,
    )
    if out is not None:
        _check_out(out)
    try:
        with Console(stderr=True).status("starting") as status:
            report = compare_networks(options, on_phase=status.update)
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_module(str(error.name), "export,profile") from error
    if out is not None:
        write_atomically(out, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    if as_json:
        emit_json(report)
        return
    from profiling.compare_tables import print_report  # noqa: PLC0415

    print_report(report, Console())
    if out is not None:
        click.echo(f"written to {out}")


def _check_out(path: Path) -> None:
    """Refuse a file that cannot be written before measuring, not after.

    Raises:
        ConfigError: The path is a folder, or lies where nothing can be written.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, expected a file: choose another --out")
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ConfigError(f"cannot write below {parent}: choose another --out")
