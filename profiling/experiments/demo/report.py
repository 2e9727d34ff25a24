"""``report.html``, ``report.json`` and ``accuracy.png`` of a demo run."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gkt_core.files import write_atomically
from profiling.frame.plot_style import BLUE, GREEN, ORANGE, STYLE, render
from profiling.frame.units import format_bytes


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Write the three files.

    Args:
        out: The demo's output folder.
        report: What :class:`profiling.experiments.demo.run.DemoRun` returned.
    """
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    with mpl.rc_context(STYLE):
        accuracy = _accuracy_figure(report)
        write_atomically(out / "accuracy.png", render(accuracy, "png"))
        plots = {
            "accuracy": _inline(accuracy),
            "loss": _inline(_loss_figure(report)),
            "bytes": _inline(_bytes_figure(report)),
            "seconds": _inline(_seconds_figure(report)),
            "split": _inline(_split_figure(report)),
        }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("profiling.experiments.demo"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = format_bytes
    html = environment.get_template("report.html.j2").render(
        report=report, plots=plots, totals=_totals(report)
    )
    write_atomically(out / "report.html", html.encode())
    # Last: a folder with a report.json is a finished run.
    write_atomically(out / "report.json", text.encode())


def _totals(report: dict[str, Any]) -> dict[str, Any]:
    upload = sum(n for kind, n in report["traffic"].items() if kind.startswith("upload/"))
    download = sum(n for kind, n in report["traffic"].items() if kind.startswith("download/"))
    num_examples = sum(client["num_examples"] for client in report["clients"])
    return {
        "upload": upload,
        "download": download,
        "num_examples": num_examples,
        "per_sample_round": report["traffic"].get("upload/shards", 0)
        / max(1, len(report["rounds"]))
        / max(1, num_examples + sum(c["num_validation_examples"] for c in report["clients"])),
        "image_bytes": 3 * report["image_size"] ** 2,
        "feature_bytes": 64 * report["image_size"] ** 2,
    }


def _inline(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(render(figure, "svg")).decode()


def _axes(title: str, ylabel: str, width: float = 6.4, height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _round_axis(axes: Axes, report: dict[str, Any]) -> list[int]:
    numbers = [entry["round_num"] for entry in report["rounds"]]
    axes.set_xlabel("round")
    axes.set_xticks(numbers if len(numbers) <= 20 else numbers[:: len(numbers) // 10])
    axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
    return numbers


def _column(report: dict[str, Any], name: str) -> list[float]:
    return [entry[name] for entry in report["rounds"]]


def _accuracy_figure(report: dict[str, Any]) -> Figure:
    config = report["config"]
    figure, axes = _axes(
        f"{Path(config['dataset']).name}: accuracy of the combined models", "accuracy (%)", 7.2, 4.2
    )
    numbers = _round_axis(axes, report)
    axes.plot(
        numbers,
        [100 * value for value in _column(report, "validation_accuracy")],
        marker="o",
        color=BLUE,
        label=f"extractor + {config['server_network']}, validation",
    )
    axes.axhline(
        100 * report["test_accuracy"],
        color=GREEN,
        linestyle="--",
        label=f"the same, test: {100 * report['test_accuracy']:.1f} %",
    )
    axes.axhline(
        100 * report["edge_only_test_accuracy"],
        color=ORANGE,
        linestyle=":",
        linewidth=2,
        label=f"{config['edge_network']} alone on each device, test: "
        f"{100 * report['edge_only_test_accuracy']:.1f} %",
    )
    axes.set_ylim(0, 102)
    axes.legend(frameon=False, loc="best")
    return figure


def _loss_figure(report: dict[str, Any]) -> Figure:
    figure, axes = _axes("Loss", "loss")
    numbers = _round_axis(axes, report)
    axes.plot(numbers, _column(report, "edge_loss"), marker="s", color=ORANGE, label="devices (Eq. 7)")
    axes.plot(numbers, _column(report, "train_loss"), marker="o", color=BLUE, label="server, training")
    axes.plot(
        numbers, _column(report, "validation_loss"), marker="^", color=GREEN, label="server, validation (CE)"
    )
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def _bytes_figure(report: dict[str, Any]) -> Figure:
    figure, axes = _axes("Bytes in each round, all devices", "megabytes")
    numbers = _round_axis(axes, report)
    up = [value / 1e6 for value in _column(report, "upload_bytes")]
    down = [value / 1e6 for value in _column(report, "download_bytes")]
    axes.bar(numbers, up, color=BLUE, width=0.6, label="up: features, logits, labels")
    axes.bar(numbers, down, bottom=up, color=ORANGE, width=0.6, label="down: soft labels")
    axes.set_ylim(0, 1.25 * max(u + d for u, d in zip(up, down, strict=True)))
    axes.legend(frameon=False, loc="upper right")
    return figure


def _seconds_figure(report: dict[str, Any]) -> Figure:
    figure, axes = _axes("Seconds in each phase", "seconds")
    numbers = _round_axis(axes, report)
    edge, server = _column(report, "edge_seconds"), _column(report, "server_seconds")
    axes.bar(numbers, edge, color=ORANGE, width=0.6, label="devices train and upload")
    axes.bar(numbers, server, bottom=edge, color=BLUE, width=0.6, label="server trains")
    axes.set_ylim(0, 1.25 * max(e + s for e, s in zip(edge, server, strict=True)))
    axes.legend(frameon=False, loc="upper right")
    return figure


def _split_figure(report: dict[str, Any]) -> Figure:
    clients = report["clients"]
    figure, axes = _axes("Training samples of each class on each device", "", height=1.2 + 0.3 * len(clients))
    counts = [client["class_counts"] for client in clients]
    axes.grid(visible=False)
    image = axes.imshow(counts, aspect="auto", cmap="Blues", vmin=0)
    axes.set_yticks(range(len(clients)), [client["client_id"] for client in clients])
    if len(report["class_names"]) <= 20:
        axes.set_xticks(range(len(report["class_names"])), report["class_names"], rotation=0)
    axes.set_xlabel("class")
    figure.colorbar(image, ax=axes)
    return figure
