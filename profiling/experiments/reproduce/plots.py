"""The curves of a reproduction: validation accuracy by round, a line a cell."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from profiling.experiments.reproduce.summary import CellResult
from profiling.experiments.round_plots import round_axes
from profiling.frame.plot_style import BLUE, GRAY, GREEN, ORANGE, STYLE, titled_axes

_COLORS = (BLUE, ORANGE, GREEN, GRAY, "#8250df", "#bf3989", "#9a6700", "#0550ae")


def accuracy_figure(results: Sequence[CellResult], title: str) -> Figure | None:
    """Draw validation accuracy by round, a line a cell (mean of the seeds, the range shaded).

    Returns:
        None where nothing was run.
    """
    shown = [result for result in results if result.runs]
    if not shown:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = titled_axes(8.4, 4.6)
        round_axes(axes, title, "validation accuracy (%)")
        for place, result in enumerate(shown):
            curves = np.asarray(
                [
                    [100 * line["validation_accuracy"] for line in run["metrics"]]
                    for run in result.runs.values()
                ]
            )
            rounds = np.arange(1, curves.shape[1] + 1)
            color = _COLORS[place % len(_COLORS)]
            style = "-" if place < len(_COLORS) else "--"
            label = f"{result.cell.row}, {result.cell.column}"
            spec = result.cell.spec
            if spec.algorithm == "fedgkt" and spec.partition == "dirichlet":
                label += "\n(each device on its own classes)"
            axes.plot(rounds, curves.mean(0), style, marker="o", markersize=3, color=color, label=label)
            axes.fill_between(rounds, curves.min(0), curves.max(0), color=color, alpha=0.15, lw=0)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        return figure
