"""How all plots look, and how they become files; imports no matplotlib, which a device has not."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, BLUE, ORANGE, GREEN, GRAY = "#1b1f24", "#1f6feb", "#d9730d", "#2da44e", "#8b949e"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#d8dee4",
    "svg.hashsalt": "gkt",
}


def titled_axes(width: float, height: float, title: str = "") -> tuple[Figure, Axes]:
    """A figure of this size in inches, and its only axes."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - a device has none

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def render(figure: Figure, kind: str = "svg") -> bytes:
    """A figure as a file, ``svg`` or ``png``; the same figure gives the same bytes."""
    import matplotlib as mpl  # noqa: PLC0415

    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    with mpl.rc_context(STYLE):  # the salt of an SVG's ids is read when it is written
        figure.savefig(buffer, format=kind, dpi=144, metadata=metadata)
    return buffer.getvalue()
