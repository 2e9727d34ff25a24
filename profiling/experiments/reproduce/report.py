"""``NAME.json``, ``NAME.md`` and ``NAME.html``: the paper's numbers and ours side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gkt_core.files import write_atomically
from profiling.experiments.reproduce.cells import Experiment
from profiling.experiments.reproduce.counted import CountedFigure
from profiling.experiments.reproduce.plots import accuracy_figure
from profiling.experiments.reproduce.scales import Scale
from profiling.experiments.reproduce.summary import CellResult
from profiling.frame.confusion_figure import confusion_figure, split_figure
from profiling.frame.machine import describe_machine
from profiling.frame.pictures import data_uri, templates
from profiling.frame.plot_style import render
from profiling.frame.sections import Page, Section
from profiling.frame.text import to_markdown
from profiling.frame.units import format_bytes


def table_report(
    experiment: Experiment, results: Sequence[CellResult], scale: Scale, command: str
) -> dict[str, Any]:
    """Compose what the files of a table hold, as JSON-compatible values."""
    cells = [result.to_dict() for result in results]
    return {
        **_head(experiment, scale.name, scale.says, command),
        "cells": cells,
        "precisions": sorted({precision for cell in cells for precision in cell["precisions"]}),
        "machines": _machines(results),
    }


def counted_report(figure: CountedFigure, scale: Scale, command: str) -> dict[str, Any]:
    """Compose what the files of a counted figure hold."""
    setting = "Counted, not trained: the same at every scale."
    bars = [asdict(bar) for bar in figure.bars]
    return {**_head(figure, scale.name, setting, command), "bars": bars, "machines": [describe_machine()]}


def _head(shown: Experiment | CountedFigure, scale: str, setting: str, command: str) -> dict[str, Any]:
    about = {"name": shown.name, "title": shown.title, "note": shown.note}
    return {**about, "scale": scale, "setting": setting, "command": command}


def write_report(out: Path, report: dict[str, Any], figures: Mapping[str, Figure]) -> None:
    """Write the three files and the figures.

    Args:
        out: Folder.
        report: What :func:`table_report` or :func:`counted_report` returned.
        figures: Figures by file name without ending.
    """
    setting = Section("Setting", notes=[report["setting"], report["note"], f"Made by: {report['command']}"])
    page = Page(report["title"], [setting, _table(report), *_not_run(report), _machine(report)])
    inline = {}
    for stem, figure in figures.items():
        write_atomically(out / f"{stem}.png", render(figure, "png"))
        inline[stem] = data_uri(render(figure, "svg"))
    html = templates("profiling.experiments.reproduce").get_template("reproduction.html.j2")
    pictures = "".join(f"![{stem}]({stem}.png)\n\n" for stem in figures)
    files = {
        "json": json.dumps(report, indent=1, allow_nan=False) + "\n",
        "md": to_markdown(page) + "\n" + pictures.rstrip("\n") + "\n",
        "html": html.render(page=page, figures=inline),
    }
    for ending, text in files.items():
        write_atomically(out / f"{report['name']}.{ending}", text.encode())


def _table(report: Mapping[str, Any]) -> Section:
    if "bars" in report:
        unit = report["bars"][0]["unit"]
        rows = [(bar["label"], f"{bar['value']:,.2f}", bar["paper"]) for bar in report["bars"]]
        return Section("Counted", ("", unit, "paper"), rows)
    notes = ["Top-1 test accuracy; ours: mean and its 95 % interval (Student's t) over n seeds."]
    if report["precisions"]:
        trained = " and ".join(report["precisions"])
        notes.append(f"The large networks were trained in {trained}, and evaluated in float32.")
    if report["scale"] != "full":
        notes.append(
            "The paper's numbers are of its own, larger setting: compare rows with each other, not ours with "
            "the paper's."
        )
    return Section(
        title="Test accuracy in percent",
        headings=("", "", "paper", "ours", "validation", "sent by all devices", "received"),
        rows=[
            (
                *(cell["row"], cell["column"], paper(cell["paper"]), ours(cell)),
                "" if cell["mean_validation_accuracy"] is None else f"{cell['mean_validation_accuracy']:.2f}",
                *(_bytes(cell[f"mean_{way}_bytes"]) for way in ("upload", "download")),
            )
            for cell in report["cells"]
            if cell["mean_test_accuracy"] is not None
        ],
        notes=[" ".join(notes)],
    )


def _not_run(report: Mapping[str, Any]) -> list[Section]:
    """Give the cells that have no number yet, folded where others have one."""
    rows = [
        (cell["row"], cell["column"], paper(cell["paper"]), str(cell["not_run"]))
        for cell in report.get("cells", ())
        if cell["mean_test_accuracy"] is None
    ]
    if not rows:
        return []
    title = f"Not run: {len(rows)} of {len(report['cells'])} cells"
    return [Section(title, ("", "", "paper", "why"), rows, is_folded=len(rows) < len(report["cells"]))]


def _machine(report: Mapping[str, Any]) -> Section:
    notes = []
    for machine in report["machines"]:
        packages = "".join(f", {name} {version}" for name, version in machine["packages"].items())
        notes.append(
            f"Machine: {machine['cpu_model']}, {machine['num_usable_cores']} cores, "
            f"Python {machine['python']}{packages}."
        )
    return Section("Where", notes=notes)


def table_figures(experiment: Experiment, results: Sequence[CellResult]) -> dict[str, Figure]:
    """Draw accuracy by round, the confusion matrix of each cell (all seeds together), and each split."""
    figures: dict[str, Figure] = {}
    number = experiment.title.partition(":")[0]
    accuracy = accuracy_figure(results, f"{number}: validation accuracy")
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
                title = f"{result.cell.column}, seed {seed}: samples of each class"
                figures[stem] = split_figure(run["class_counts"], run["class_names"], title)
    return figures


def _machines(results: Sequence[CellResult]) -> list[dict[str, Any]]:
    machines: list[dict[str, Any]] = []
    for result in results:
        for run in result.runs.values():
            if run["machine"] not in machines:
                machines.append(run["machine"])
    return machines


def ours(cell: Mapping[str, Any]) -> str:
    """Show our number of a cell: mean, 95 % interval and number of seeds, or why there is none."""
    if cell["mean_test_accuracy"] is None:
        return str(cell["not_run"])
    half = cell["half_interval_95"]
    text = f"{cell['mean_test_accuracy']:.2f}"
    text += f" ± {half:.2f}" if half is not None else ""
    return f"{text} (n = {cell['num_seeds']})"


def paper(value: float | str) -> str:
    """Show the paper's number of a cell."""
    return value if isinstance(value, str) else f"{value:.2f}"


def _bytes(value: float | None) -> str:
    return "" if value is None else format_bytes(round(value))
