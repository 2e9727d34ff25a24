"""``gkt profile diff``: two machines or two versions."""

from __future__ import annotations

from pathlib import Path

import click

from gkt_core.cli import Command
from profiling.frame import emit_report, output_options
from profiling.frame.diff.changes import compare_documents
from profiling.frame.registry import read_document


@click.command(cls=Command, example="gkt profile diff before.json after.json")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@output_options
def diff(*, first: Path, second: Path, outs: tuple[Path, ...], as_json: bool) -> None:
    """Show what changed between two JSON files of the same gkt profile command.

    A time has changed when the confidence intervals of both medians are apart and the medians differ by more
    than 5 % and by more than either run drifted by itself. Ratios agree when they differ by at most 10 %. The
    exit code is 0 either way.
    """
    names = (first.stem, second.stem) if first.stem != second.stem else (str(first), str(second))
    document = compare_documents(read_document(first), read_document(second), names)
    emit_report(document, outs, as_json)
