"""Where a report goes: ``--json`` to stdout, ``--out`` to files by suffix, else tables on the screen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gkt_core.cli import emit_json
from gkt_core.config.output_path import OUTPUT_FILE
from gkt_core.errors import ConfigError
from gkt_core.files import write_atomically
from gkt_core.terminal import console
from profiling.frame.registry import page_of
from profiling.frame.sections import Document, Page

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

SUFFIXES = (".json", ".md", ".html", ".png")


def _check_outs(ctx: click.Context, param: click.Parameter, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Refuse a file of another suffix."""
    for path in paths:
        if path.suffix not in SUFFIXES:
            raise ConfigError(f"{path} ends in {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    return paths


def output_options(function: FunctionT) -> FunctionT:
    """Add ``--out`` and ``--json``, which arrive as ``outs`` and ``as_json``.

    Files are refused here, before anything is measured.
    """
    json_option = click.option(
        "--json", "as_json", is_flag=True, help="Print the document to stdout as JSON."
    )
    out_option = click.option(
        "--out",
        "outs",
        multiple=True,
        type=OUTPUT_FILE,
        callback=_check_outs,
        help="Write the report to this file; may be given several times. The suffix says what: .json "
        "(the document), .md, .html (with plots, self-contained) or .png (the first plot).",
    )
    return out_option(json_option(function))


def emit_report(document: Document, outs: tuple[Path, ...], as_json: bool) -> None:
    """Write and print a document.

    Raises:
        MissingExtraError: An HTML file or a picture is wanted where matplotlib or Jinja is missing.
    """
    page = page_of(document)
    # The document first: whatever a picture lacks, the measurement is kept.
    for path in sorted(outs, key=lambda path: SUFFIXES.index(path.suffix)):
        write_atomically(path, _as_file(document, page, path.suffix))
    if as_json:
        emit_json(document)
        return
    from profiling.frame.text import print_page  # noqa: PLC0415

    print_page(page, console())
    for path in outs:
        click.echo(f"written to {path}")


def _as_file(document: Document, page: Page, suffix: str) -> bytes:
    if suffix == ".json":
        return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    if suffix == ".md":
        from profiling.frame.text import to_markdown  # noqa: PLC0415

        return to_markdown(page).encode()
    from profiling.frame.pictures import to_html, to_png  # noqa: PLC0415

    return to_png(document, page) if suffix == ".png" else to_html(document, page).encode()
