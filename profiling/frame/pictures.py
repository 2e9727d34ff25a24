"""Plots of a report as PNG, and reports as HTML files that need nothing beside them."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from gkt_core.errors import InputError, needs
from profiling.frame.plot_style import STYLE, render
from profiling.frame.sections import Document, Page, Plot
from profiling.frame.units import format_bytes

if TYPE_CHECKING:
    import jinja2


def to_png(document: Document, page: Page) -> bytes:
    """Draw the first plot of a report.

    Raises:
        InputError: Reports of this kind have no plot.
        MissingExtraError: matplotlib is not installed.
    """
    if not page.plots:
        raise InputError("this report has no plot: choose --out NAME.json, NAME.md or NAME.html")
    return _render(document, page.plots[0], "png")


def to_html(document: Document, page: Page) -> str:
    """Write a whole report, tables, plots and the document itself, into one file.

    Raises:
        MissingExtraError: matplotlib or Jinja is not installed.
    """
    plots = [(plot.name, data_uri(_render(document, plot, "svg"))) for plot in page.plots]
    shown = json.dumps(document, indent=2, allow_nan=False)
    return templates().get_template("report.html.j2").render(page=page, plots=plots, document=shown)


def templates(package: str = "profiling.frame", *, escape: bool = True) -> jinja2.Environment:
    """Make the Jinja environment of all pages.

    Args:
        package: Whose folder ``templates`` is looked into first; then the frame's, where ``base.html.j2`` has
            the stylesheet and the blocks ``title``, ``style`` and ``main``.
        escape: Whether values are escaped for HTML; not in Markdown.

    Raises:
        MissingExtraError: Jinja is not installed.
    """
    with needs("profile"):
        import jinja2  # noqa: PLC0415 - a device has none
    packages = dict.fromkeys((package, "profiling.frame"))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(each) for each in packages]),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = format_bytes
    return environment


def data_uri(svg: bytes) -> str:
    """Turn a picture into the source of an ``img``."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _render(document: Document, plot: Plot, file_format: str) -> bytes:
    with needs("profile"):
        import matplotlib as mpl  # noqa: PLC0415 - a device has none
    with mpl.rc_context(STYLE):
        return render(plot.draw(document), file_format)
