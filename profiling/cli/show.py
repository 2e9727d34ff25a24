"""``gkt profile show``: a saved document again, on the screen or as a page."""

from __future__ import annotations

from pathlib import Path

import click

from gkt_core.cli import Command
from profiling.frame import emit_report, output_options
from profiling.frame.registry import read_document


@click.command(cls=Command, example="gkt profile show edge.json --out edge.html")
@click.argument("document", type=click.Path(path_type=Path))
@output_options
def show(*, document: Path, outs: tuple[Path, ...], as_json: bool) -> None:
    """Show a JSON file of gkt profile again, or turn it into Markdown, HTML or a picture.

    Measure on a device, which has no plotting, and make the page elsewhere.
    """
    emit_report(read_document(document), outs, as_json)
