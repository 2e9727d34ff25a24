"""The curves of a reproduction: validation accuracy by round, by bytes and by hours, a line a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from profiling.experiments.reproduce.summary import CellResult
from profiling.frame.plot_style import BLUE, GRAY, GREEN, ORANGE, STYLE

_COLORS = (BLUE, ORANGE, GREEN, GRAY, "#8250df", "#bf3989", "#9a6700", "#0550ae")
_STYLES = ("-", "--", ":")


Curve = Callable[[Mapping[str, Any]], NDArray[np.float64]]


def _rounds(run: Mapping[str, Any]) -> NDArray[np.float64]:
    return np.arange(1, len(run["metrics"]) + 1, dtype=np.float64)


def _megabytes(run: Mapping[str, Any]) -> NDArray[np.float64]:
    sent = [line["upload_bytes"] + line["download_bytes"] for line in run["metrics"]]
    total: NDArray[np.float64] = np.cumsum(np.asarray(sent, np.float64)) / 1e6
    return total


def _hours(run: Mapping[str, Any]) -> NDArray[np.float64]:
    """Of training; rounds of runs that were kept before rounds were timed took the same time each."""
    num = len(run["metrics"])
    seconds = run.get("round_seconds", [run["training_seconds"] / num] * num)
    total: NDArray[np.float64] = np.cumsum(np.asarray(seconds, np.float64)) / 3600
    return total


_ABSCISSAE: tuple[tuple[str, Curve], ...] = (
    ("rounds", _rounds),
    ("MB sent and received by all devices", _megabytes),
    ("hours of the machine that simulated it", _hours),
)


def accuracy_figure(results: Sequence[CellResult], title: str) -> Figure | None:
    """Draw validation accuracy by round, by bytes and by hours, a line a cell.

    A line is the mean of the seeds, their range is shaded; what sends nothing has no line by bytes.

    Returns:
        None where nothing was run.
    """
    shown = [result for result in results if result.runs]
    if not shown:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(14.4, 5.2), layout="constrained")
        panels: list[Axes] = list(figure.subplots(1, 3, sharey=True))
        for axes, (words, abscissa) in zip(panels, _ABSCISSAE, strict=True):
            axes.set_xlabel(words)
            axes.grid(axis="y", linewidth=0.8)
            for place, result in enumerate(shown):
                _draw(axes, abscissa, result, place)
        panels[0].set_title(title)
        panels[0].set_ylabel("validation accuracy (%)")
        panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set_ylim(bottom=0)
        panels[1].set_xscale("log")
        lines, labels = panels[0].get_legend_handles_labels()
        figure.legend(lines, labels, frameon=False, fontsize=8, loc="outside lower center", ncols=3)
        return figure


def _draw(axes: Axes, abscissa: Curve, result: CellResult, place: int) -> None:
    runs = list(result.runs.values())
    accuracies = np.asarray([[100 * line["validation_accuracy"] for line in run["metrics"]] for run in runs])
    along = np.asarray([abscissa(run) for run in runs]).mean(0)
    if not along[-1]:
        return
    spec = result.cell.spec
    label = f"{result.cell.row}, {result.cell.column}"
    if spec.algorithm == "fedgkt" and spec.partition == "dirichlet":
        label += " (each device on its own classes)"
    color, style = _COLORS[place % len(_COLORS)], _STYLES[place // len(_COLORS) % len(_STYLES)]
    axes.plot(along, accuracies.mean(0), style, marker="o", markersize=3, color=color, label=label)
    axes.fill_between(along, accuracies.min(0), accuracies.max(0), color=color, alpha=0.15, lw=0)
