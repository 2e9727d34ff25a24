"""``gkt verify``: the proof of an export, repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress
from rich.table import Table

from edge_export.cli.options import VerifyOptions
from gkt_core.bundle.manifest import load_bundle
from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.errors import needs
from gkt_core.terminal import console

_ROWS_OF_GRADIENTS = 3


@click.command(cls=Command, example="gkt verify artifacts")
@click.argument("artifacts", type=click.Path(path_type=Path))
@dataclass_options(VerifyOptions)
@json_option("every quantity as JSON")
def verify(artifacts: Path, options: VerifyOptions, as_json: bool) -> None:
    """Check a bundle: its files by hash, then 20 training steps of each engine against PyTorch.

    Loss, every gradient, updated parameters, running statistics, eval features and logits may be no
    further from float64 than twice PyTorch's own float32. Exit code 6 if they are. An engine that is not
    installed here is left out by name.
    """
    with needs("export"):
        from edge_export.reopening import network_of  # noqa: PLC0415 - imports torch
        from edge_export.verification import verify_bundle  # noqa: PLC0415
    bundle = load_bundle(artifacts)
    with export_progress() as (say, on_step):
        say("verifying against PyTorch in float64")
        verification = verify_bundle(bundle, network_of(bundle), depth=options.depth, on_step=on_step)
    for engine in set(bundle.manifest.engines) - set(verification):
        click.echo(f"{engine} is not verified: the installed ONNX Runtime is no training build", err=True)
    if as_json:
        emit_json(verification)
    else:
        show_verification(verification)


@contextlib.contextmanager
def export_progress() -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """What is done now, on stderr: a bar on a terminal, else a line for each thing and each quarter of steps.

    Yields:
        What takes a line, and what takes the number of steps that are done, and of all.
    """
    screen = console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("", total=None)

        def say(line: str) -> None:
            progress.update(bar, description=line)
            if not screen.is_terminal:
                click.echo(line, err=True)

        def on_step(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)
            if not screen.is_terminal and 4 * done // total > 4 * (done - 1) // total:
                click.echo(f"verifying: {done} of {total} steps", err=True)

        yield say, on_step


def show_verification(verification: dict[str, Any]) -> None:
    """Print the table: for each engine the distances from float64, of the gradients the largest few."""
    for engine, result in verification.items():
        table = Table(
            title=f"{engine}: from float64, {result['steps']} steps of {result['batch_size']} images",
            title_justify="left",
        )
        for column in ("quantity", engine, "PyTorch float32", "limit"):
            table.add_column(column, justify="left" if column == "quantity" else "right")
        checks = result["checks"]
        gradients = [name for name in checks if name.startswith("gradient of ")]
        gradients.sort(key=lambda name: -checks[name]["distance"])
        hidden = set(gradients[_ROWS_OF_GRADIENTS:])
        for name, check in checks.items():
            if name not in hidden:
                table.add_row(name, *(f"{check[key]:.1e}" for key in ("distance", "pytorch", "limit")))
        if hidden:
            table.caption = f"and {len(hidden)} gradients that are closer"
        console().print(table)
