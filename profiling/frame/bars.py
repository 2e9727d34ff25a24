"""The plot that most reports have: horizontal bars, one quantity each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiling.frame.plot_style import BLUE, INK, titled_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Bar:
    """One quantity.

    Attributes:
        label: To its left.
        value: Its length.
        color: Of the bar.
        interval: Lower and upper end of a line over its end, or None.
        note: To its right.
    """

    label: str
    value: float
    color: str = BLUE
    interval: tuple[float, float] | None = None
    note: str = ""


def bar_figure(
    title: str, unit: str, bars: Sequence[Bar], *, marked: float | None = None, marked_note: str = ""
) -> Figure:
    """Draw bars from top to bottom.

    Args:
        title: Above the plot.
        unit: Below the axis: what is shown, and in which unit.
        bars: In this order.
        marked: A value with a dashed line across all bars.
        marked_note: Over that line.
    """
    figure, axes = titled_axes(7.2, 1.4 + 0.4 * len(bars), title)
    positions = range(len(bars))[::-1]
    for position, bar in zip(positions, bars, strict=True):
        axes.barh(position, bar.value, color=bar.color)
        if bar.interval is not None:
            axes.plot(bar.interval, [position, position], color=INK, linewidth=2)
        if bar.note:
            place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(bar.note, (bar.value, position), **place)  # type: ignore[arg-type]
    if any(bar.note for bar in bars):
        axes.set_xmargin(0.3)
    if marked is not None:
        axes.axvline(marked, color=INK, linestyle="--", linewidth=1)
        axes.annotate(marked_note, (marked, len(bars) - 0.6), ha="center", va="bottom")
    axes.set_yticks(positions, [bar.label for bar in bars])
    axes.set_xlabel(unit)
    return figure
