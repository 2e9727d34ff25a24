"""``NAME.json``, ``NAME.md`` and ``NAME.html``: the paper's numbers and ours side by side."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from gkt_core.files import write_atomically
from profiling.experiments.reproduce.counted import Bar
from profiling.experiments.reproduce.experiments import NOT_AVAILABLE, Experiment
from profiling.experiments.reproduce.plots import accuracy_figure, split_figure
from profiling.experiments.reproduce.scales import Scale
from profiling.experiments.reproduce.summary import CellResult
from profiling.frame.confusion_figure import confusion_figure
from profiling.frame.machine import describe_machine
from profiling.frame.plot_style import render
from profiling.frame.units import format_bytes


def table_report(
    experiment: Experiment, results: Sequence[CellResult], scale: Scale, command: str
) -> dict[str, Any]:
    """What the files of a table hold, as JSON-compatible values."""
    cells = [result.to_dict() for result in results]
    return {
        "name": experiment.name,
        "title": experiment.title,
        "note": experiment.note,
        "scale": scale.name,
        "setting": scale.says,
        "command": command,
        "cells": cells,
        "precisions": sorted({precision for cell in cells for precision in cell["precisions"]}),
        "machines": _machines(results),
    }


def counted_report(
    name: str, title: str, note: str, bars: Sequence[Bar], scale: Scale, command: str
) -> dict[str, Any]:
    """What the files of a counted figure hold."""
    return {
        "name": name,
        "title": title,
        "note": note,
        "scale": scale.name,
        "setting": "Counted, not trained: the same at every scale.",
        "command": command,
        "bars": [bar.to_dict() for bar in bars],
        "machines": [describe_machine()],
    }


def write_report(out: Path, report: dict[str, Any], figures: Mapping[str, Figure]) -> list[Path]:
    """Write the three files and the figures.

    Args:
        out: Folder.
        report: What :func:`table_report` or :func:`counted_report` returned.
        figures: Figures by file name without ending.

    Returns:
        The files.
    """
    name = report["name"]
    for stem, figure in figures.items():
        write_atomically(out / f"{stem}.png", render(figure, "png"))
    inline = {
        stem: "data:image/svg+xml;base64," + base64.b64encode(render(figure)).decode()
        for stem, figure in figures.items()
    }
    files = {
        out / f"{name}.json": json.dumps(report, indent=1, allow_nan=False) + "\n",
        out / f"{name}.md": _template("report.md.j2", escape=False).render(
            report=report, figures=list(figures)
        ),
        out / f"{name}.html": _template("report.html.j2", escape=True).render(report=report, figures=inline),
    }
    for path, text in files.items():
        write_atomically(path, text.encode())
    return list(files)


def table_figures(experiment: Experiment, results: Sequence[CellResult]) -> dict[str, Figure]:
    """Accuracy by round, the confusion matrix of each cell (all seeds together), and each split."""
    figures: dict[str, Figure] = {}
    number = experiment.title.partition(":")[0]
    accuracy = accuracy_figure(results, f"{number}: validation accuracy, round by round")
    if accuracy is not None:
        figures[f"{experiment.name}-accuracy"] = accuracy
    for result in results:
        if result.runs:
            cell, first = result.cell, next(iter(result.runs.values()))
            counts = sum(np.asarray(run["result"]["confusion_matrix"]) for run in result.runs.values())
            title = f"{cell.row}, {cell.column}"
            stem = f"{experiment.name}-confusion-{cell.spec.stem}"
            figures[stem] = confusion_figure(counts, first["class_names"], title)
    for result in results:
        for seed, run in sorted(result.runs.items()):
            spec = result.cell.spec
            stem = f"split-{spec.dataset}-{spec.partition}-{len(run['class_counts'])}clients-seed{seed}"
            if stem not in figures:
                figures[stem] = split_figure(run, f"{result.cell.column}, seed {seed}: samples of each class")
    return figures


def _machines(results: Sequence[CellResult]) -> list[dict[str, Any]]:
    found = [run["machine"] for result in results for run in result.runs.values()]
    return [machine for place, machine in enumerate(found) if machine not in found[:place]]


def ours(cell: Mapping[str, Any]) -> str:
    """Our number of a cell: mean, spread and number of seeds, or why there is none."""
    if cell["mean_test_accuracy"] is None:
        return str(cell["not_run"])
    spread = cell["standard_deviation"]
    text = f"{cell['mean_test_accuracy']:.2f}"
    text += f" ± {spread:.2f}" if spread is not None else ""
    return f"{text} (n = {cell['num_seeds']})"


def paper(value: float | str) -> str:
    """The paper's number of a cell."""
    return value if isinstance(value, str) else f"{value:.2f}"


def _bytes(value: float | None) -> str:
    return "" if value is None else format_bytes(round(value))


def _template(name: str, *, escape: bool) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("profiling.experiments.reproduce"),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ours": ours, "paper": paper, "bytes": _bytes}
    environment.globals["NOT_AVAILABLE"] = NOT_AVAILABLE
    return environment.get_template(name)
