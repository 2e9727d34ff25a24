"""Counts by class as a picture: what was taken for what, and which device holds what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from profiling.frame.plot_style import STYLE, titled_axes

# Above these many classes, or fields of a picture, names and numbers would be too small to read.
_MOST_NAMED_CLASSES = 20
_MOST_NUMBERS = 20 * 20


def confusion_figure(confusion: ArrayLike, class_names: Sequence[str], title: str) -> Figure:
    """Draw how often images of each class were taken for each other one.

    Args:
        confusion: ``[C, C]`` counts, rows the true classes. A row's share on the diagonal is that class's
            accuracy.
        class_names: C names.
        title: Which model.
    """
    counts = np.asarray(confusion, np.float64)
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with mpl.rc_context(STYLE):
        figure, axes = titled_axes(6.6, 5.6, title)
        image = _draw(axes, percent, class_names, 100)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if len(counts) <= _MOST_NAMED_CLASSES:
            axes.set_yticks(range(len(counts)), class_names)
        figure.colorbar(image, ax=axes, label="of the true class's images (%)", shrink=0.8)
        return figure


def split_figure(class_counts: Mapping[str, Sequence[int]], class_names: Sequence[str], title: str) -> Figure:
    """Draw how many training samples of each class each device holds.

    Args:
        class_counts: C counts by device.
        class_names: C names.
        title: Which split.
    """
    counts = np.asarray(list(class_counts.values()), np.float64)
    with mpl.rc_context(STYLE):
        figure, axes = titled_axes(7.2, 1.4 + 0.32 * len(counts), title)
        image = _draw(axes, counts, class_names, float(counts.max()))
        axes.set_xlabel("class")
        axes.set_yticks(range(len(counts)), list(class_counts))
        if counts.size > _MOST_NUMBERS:
            figure.colorbar(image, ax=axes)
        return figure


def _draw(axes: Axes, values: NDArray[np.float64], class_names: Sequence[str], most: float) -> Any:
    image = axes.imshow(values, aspect="auto", cmap="Blues", vmin=0, vmax=most)
    if len(class_names) <= _MOST_NAMED_CLASSES:
        axes.set_xticks(range(len(class_names)), class_names, rotation=30, ha="right")
    if values.size <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(values):
            color = "white" if value > most / 2 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
    return image
