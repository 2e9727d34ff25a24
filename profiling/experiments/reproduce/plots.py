"""Pictures of a reproduction: accuracy by round, and how the split looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from profiling.experiments.reproduce.summary import CellResult
from profiling.frame.plot_style import BLUE, GRAY, GREEN, ORANGE, STYLE

_COLORS = (BLUE, ORANGE, GREEN, GRAY, "#8250df", "#bf3989", "#9a6700", "#0550ae")


def accuracy_figure(results: Sequence[CellResult], title: str) -> Figure | None:
    """Validation accuracy by round, a line a cell (mean of the seeds, the range shaded).

    Returns:
        None where nothing was run.
    """
    shown = [result for result in results if result.runs]
    if not shown:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 4.6), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        for place, result in enumerate(shown):
            curves = [
                [100 * line["validation_accuracy"] for line in run["metrics"]] for run in result.runs.values()
            ]
            rounds = np.arange(1, len(curves[0]) + 1)
            color = _COLORS[place % len(_COLORS)]
            style = "-" if place < len(_COLORS) else "--"
            label = f"{result.cell.row}, {result.cell.column}"
            spec = result.cell.spec
            if spec.algorithm == "fedgkt" and spec.partition == "dirichlet":
                label += "\n(each device on its own classes)"
            axes.plot(
                rounds, np.mean(curves, axis=0), style, marker="o", markersize=3, color=color, label=label
            )
            axes.fill_between(
                rounds, np.min(curves, axis=0), np.max(curves, axis=0), color=color, alpha=0.15, lw=0
            )
        axes.set_xlabel("round")
        axes.set_ylabel("validation accuracy (%)")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", linewidth=0.8)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        return figure


def split_figure(run: Mapping[str, Any], title: str) -> Figure:
    """How many training samples of each class each device holds.

    Args:
        run: A finished run, with ``class_counts`` and ``class_names``.
        title: Which split.
    """
    counts = np.asarray(list(run["class_counts"].values()))
    names = list(run["class_names"])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.4 + 0.32 * len(counts)), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        image = axes.imshow(counts, aspect="auto", cmap="Blues", vmin=0)
        axes.set_yticks(range(len(counts)), list(run["class_counts"]))
        if len(names) <= 20:
            axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        if counts.size <= 200:
            for (row, column), count in np.ndenumerate(counts):
                color = "white" if count > counts.max() / 2 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=color)
        else:
            figure.colorbar(image, ax=axes)
        axes.set_xlabel("class")
        return figure
