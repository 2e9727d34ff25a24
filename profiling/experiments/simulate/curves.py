"""Pictures of a simulation as PNG: curves, and what is taken for what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gkt_core.files import write_atomically
from profiling.experiments.round_plots import Series, draw_lines
from profiling.frame.confusion_figure import confusion_figure
from profiling.frame.plot_style import BLUE, GREEN, ORANGE, STYLE, render


def write_curves(path: Path, metrics: list[dict[str, Any]], result: dict[str, Any], title: str) -> None:
    """Draw accuracy and loss of each round.

    Args:
        path: The PNG.
        metrics: Lines of ``metrics.jsonl``.
        result: What ``result.json`` holds.
        title: Algorithm and data, for a person.
    """
    accuracies = [100 * line["validation_accuracy"] for line in metrics]
    test = 100 * result["test_accuracy"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 4), layout="constrained")
        accuracy, loss = figure.subplots(1, 2)
        draw_lines(accuracy, title, "accuracy (%)", Series("validation", accuracies, BLUE), top=102)
        accuracy.axhline(test, color=GREEN, linestyle="--", label=f"test, at the end: {test:.2f} %")
        accuracy.legend(frameon=False)
        draw_lines(
            loss,
            "",
            "loss",
            Series("training", [line["train_loss"] for line in metrics], ORANGE, "s"),
            Series("validation", [line["validation_loss"] for line in metrics], BLUE),
        )
    write_atomically(path, render(figure, "png"))


def write_confusion(path: Path, result: dict[str, Any], title: str) -> None:
    """Draw the confusion matrix of the test images.

    Args:
        path: The PNG.
        result: What ``result.json`` holds.
        title: Algorithm and data, for a person.
    """
    figure = confusion_figure(result["confusion_matrix"], list(result["per_class_accuracy"]), title)
    write_atomically(path, render(figure, "png"))
