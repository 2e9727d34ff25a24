"""Plots over the rounds of a run, which demo, simulation and reproduction draw alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from profiling.frame.plot_style import titled_axes


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity of each round.

    Attributes:
        label: For the legend.
        values: One a round, the first round's first.
        color: Of line or bars.
        marker: Of a line.
    """

    label: str
    values: Sequence[float]
    color: str
    marker: str = "o"


def round_axes(axes: Axes, title: str, ylabel: str) -> None:
    """Prepare axes whose abscissa are rounds."""
    axes.set_title(title)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", linewidth=0.8)
    axes.set_axisbelow(True)


def draw_lines(axes: Axes, title: str, ylabel: str, *series: Series, top: float | None = None) -> None:
    """Draw a line for each series, from 0 to ``top``, or to what there is."""
    round_axes(axes, title, ylabel)
    for each in series:
        rounds = range(1, len(each.values) + 1)
        axes.plot(rounds, each.values, marker=each.marker, color=each.color, label=each.label)
    axes.set_ylim(0, top)
    axes.legend(frameon=False)


def stacked_figure(title: str, ylabel: str, *series: Series) -> Figure:
    """Draw a bar for each round, in which the series stand upon each other."""
    figure, axes = titled_axes(6.4, 3.6)
    round_axes(axes, title, ylabel)
    tops = [0.0] * len(series[0].values)
    for each in series:
        axes.bar(
            range(1, len(tops) + 1), each.values, bottom=tops, color=each.color, width=0.6, label=each.label
        )
        tops = [top + value for top, value in zip(tops, each.values, strict=True)]
    # Room for the legend above the highest bar.
    axes.set_ylim(0, 1.25 * max(tops))
    axes.legend(frameon=False, loc="upper right")
    return figure
