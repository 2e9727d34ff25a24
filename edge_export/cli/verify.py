"""``gkt verify``: the proof of an export, repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress
from rich.table import Table

from gkt_core.bundle.manifest import load_bundle
from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.config.network_options import RegisteredNetworks
from gkt_core.errors import needs
from gkt_core.terminal import console

_ROWS_OF_GRADIENTS = 3


@click.command(cls=Command, example="gkt verify artifacts")
@click.argument("artifacts", type=click.Path(path_type=Path))
@dataclass_options(RegisteredNetworks)
@json_option("every quantity as JSON")
def verify(artifacts: Path, options: RegisteredNetworks, as_json: bool) -> None:
    """Check a bundle: its files by hash, then 20 training steps of each engine against PyTorch.

    Loss, every gradient, updated parameters, running statistics, eval features and logits may be no
    further from float64 than twice PyTorch's own float32. Exit code 6 if they are.
    """
    with needs("export"):
        from edge_export.reopening import network_of  # noqa: PLC0415 - imports torch
        from edge_export.verification import verify_bundle  # noqa: PLC0415
    bundle = load_bundle(artifacts)
    with verification_progress() as on_step:
        verification = verify_bundle(bundle, network_of(bundle), on_step=on_step)
    if as_json:
        emit_json(verification)
    else:
        show_verification(verification)


@contextlib.contextmanager
def verification_progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, which begins with the first step."""
    with Progress(console=console(stderr=True), transient=True) as progress:
        bar = progress.add_task("verifying against PyTorch", total=None, visible=False)

        def on_step(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total, visible=True)

        yield on_step


def show_verification(verification: dict[str, Any]) -> None:
    """Print the table: for each engine the distances from float64, of the gradients the largest few."""
    for engine, result in verification.items():
        table = Table(
            title=f"{engine}: distance from float64 over {result['steps']} steps", title_justify="left"
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
