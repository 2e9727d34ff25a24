"""Plots of a report as PNG, and a report as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import json

from gkt_core.errors import InputError, MissingExtraError
from profiling.frame.kinds import ReportKind
from profiling.frame.plot_style import STYLE, render
from profiling.frame.sections import Document, Plot


def to_png(document: Document, kind: ReportKind) -> bytes:
    """The first plot of a report.

    Raises:
        InputError: Reports of this kind have no plot.
        MissingExtraError: matplotlib is not installed.
    """
    if not kind.plots:
        raise InputError("this report has no plot: choose --out NAME.json, NAME.md or NAME.html")
    return _render(document, kind.plots[0], "png")


def to_html(document: Document, kind: ReportKind) -> str:
    """A whole report: tables, plots and the document itself, in one file.

    Raises:
        MissingExtraError: matplotlib or Jinja is not installed.
    """
    try:
        import jinja2  # noqa: PLC0415 - a device has none
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_module(str(error.name), "profile") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("profiling.frame"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plots = [
        (plot.name, "data:image/svg+xml;base64," + base64.b64encode(_render(document, plot, "svg")).decode())
        for plot in kind.plots
    ]
    return environment.get_template("report.html.j2").render(
        kind=kind, plots=plots, document=json.dumps(document, indent=2, allow_nan=False)
    )


def _render(document: Document, plot: Plot, file_format: str) -> bytes:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - a device has none
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_module(str(error.name), "profile") from error
    with mpl.rc_context(STYLE):
        return render(plot.draw(document), file_format)
