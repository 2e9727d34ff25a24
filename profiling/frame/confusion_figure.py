"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from profiling.frame.plot_style import STYLE

# Above this many classes numbers and names would be too small to read.
_MOST_NAMED_CLASSES = 20


def confusion_figure(confusion: ArrayLike, class_names: Sequence[str], title: str) -> Figure:
    """How often images of each class were taken for each other one.

    Args:
        confusion: ``[C, C]`` counts, rows the true classes. A row's share on the diagonal is that class's
            accuracy.
        class_names: C names.
        title: Which model.
    """
    counts = np.asarray(confusion, np.float64)
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 5.6), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if len(counts) <= _MOST_NAMED_CLASSES:
            axes.set_xticks(range(len(counts)), class_names, rotation=30, ha="right")
            axes.set_yticks(range(len(counts)), class_names)
            for (row, column), value in np.ndenumerate(percent):
                color = "white" if value > 50 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
        figure.colorbar(image, ax=axes, label="of the true class's images (%)", shrink=0.8)
        return figure
