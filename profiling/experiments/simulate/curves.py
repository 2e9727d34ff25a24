"""Pictures of a simulation as PNG: curves, and what is taken for what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gkt_core.files import write_atomically
from profiling.frame.confusion_figure import confusion_figure
from profiling.frame.plot_style import BLUE, GREEN, ORANGE, STYLE, render


def write_curves(path: Path, metrics: list[dict[str, Any]], result: dict[str, Any], title: str) -> None:
    """Accuracy and loss of each round.

    Args:
        path: The PNG.
        metrics: Lines of ``metrics.jsonl``.
        result: What ``result.json`` holds.
        title: Algorithm and data, for a person.
    """
    numbers = [line["round_num"] for line in metrics]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 4), layout="constrained")
        accuracy, loss = figure.subplots(1, 2)
        accuracy.set_title(title)
        accuracy.plot(
            numbers,
            [100 * line["validation_accuracy"] for line in metrics],
            marker="o",
            color=BLUE,
            label="validation",
        )
        test = 100 * result["test_accuracy"]
        accuracy.axhline(test, color=GREEN, linestyle="--", label=f"test, at the end: {test:.2f} %")
        accuracy.set_ylabel("accuracy (%)")
        accuracy.set_ylim(0, 102)
        loss.plot(
            numbers, [line["train_loss"] for line in metrics], color=ORANGE, marker="s", label="training"
        )
        loss.plot(
            numbers, [line["validation_loss"] for line in metrics], color=BLUE, marker="o", label="validation"
        )
        loss.set_ylabel("loss")
        loss.set_ylim(bottom=0)
        for axes in (accuracy, loss):
            axes.set_xlabel("round")
            axes.grid(axis="y", linewidth=0.8)
            axes.legend(frameon=False)
    write_atomically(path, render(figure, "png"))


def write_confusion(path: Path, result: dict[str, Any], title: str) -> None:
    """The confusion matrix of the test images.

    Args:
        path: The PNG.
        result: What ``result.json`` holds.
        title: Algorithm and data, for a person.
    """
    figure = confusion_figure(result["confusion_matrix"], list(result["per_class_accuracy"]), title)
    write_atomically(path, render(figure, "png"))
