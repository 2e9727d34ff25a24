"""``report.html``, ``report.json`` and ``accuracy.png`` of a demo run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gkt_core.files import write_atomically
from profiling.experiments.round_plots import Series, draw_lines, stacked_figure
from profiling.frame.confusion_figure import split_figure
from profiling.frame.pictures import data_uri, templates
from profiling.frame.plot_style import BLUE, GRAY, GREEN, ORANGE, STYLE, render, titled_axes
from profiling.frame.sections import Section
from profiling.frame.tables import table
from profiling.frame.units import format_bytes, format_span


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Write the three files.

    Args:
        out: The demo's output folder.
        report: What :class:`profiling.experiments.demo.run.DemoRun` returned.
    """
    with mpl.rc_context(STYLE):
        figures = _figures(report)
    write_atomically(out / "accuracy.png", render(figures["accuracy"], "png"))
    html = (
        templates("profiling.experiments.demo")
        .get_template("demo.html.j2")
        .render(
            report=report,
            plots={name: data_uri(render(figure, "svg")) for name, figure in figures.items()},
            num_examples=sum(client["num_examples"] for client in report["clients"]),
            upload=_traffic(report, "upload/"),
            download=_traffic(report, "download/"),
            rounds=_rounds(report),
            rest=[_devices(report), _what_left(report), _settings(report)],
        )
    )
    write_atomically(out / "report.html", html.encode())
    # Last: a folder with a report.json is a finished run.
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    write_atomically(out / "report.json", text.encode())


def _traffic(report: Mapping[str, Any], kind: str) -> int:
    return sum(num for name, num in report["traffic"].items() if name.startswith(kind))


def _rounds(report: Mapping[str, Any]) -> Section:
    columns = {
        "round": "{round_num}",
        "validation accuracy": "{validation_accuracy:.1%}",
        "server loss": "{train_loss:.3f}",
        "device loss": "{edge_loss:.3f}",
        "up": "{upload_bytes:bytes}",
        "down": "{download_bytes:bytes}",
        "devices": "{edge_images_per_second:.0f} images/s",
        "server": "{server_samples_per_second:.0f} samples/s",
        "seconds": "{seconds:.1f}",
    }
    note = (
        "The devices' loss is Eq. 7: cross entropy on augmented images plus T² times the divergence from the "
        "server's soft labels. It may rise while all goes well: a teacher that grows confident is harder to "
        "follow."
    )
    return table("Rounds", columns, report["rounds"], [note])


def _devices(report: Mapping[str, Any]) -> Section:
    columns = {
        "device": "{client_id}",
        "training images": "{num_examples}",
        "validation images": "{num_validation_examples}",
        "combined model, test": "{combined:.2%}",
        "alone, test": "{alone:.2%}",
        "alone, after rounds": "{alone_rounds}",
    }
    each = {
        "combined": report["test_accuracies"],
        "alone": report["edge_only_test_accuracies"],
        "alone_rounds": report["edge_only_rounds"],
    }
    if report["logistic_regression_test_accuracies"]:
        columns["logistic regression on its pixels"] = "{simple:.2%}"
        each["simple"] = report["logistic_regression_test_accuracies"]
    devices = (
        {**client, **dict(zip(each, values, strict=True))}
        for client, values in zip(report["clients"], zip(*each.values(), strict=True), strict=True)
    )
    return table("Devices", columns, devices)


def _what_left(report: Mapping[str, Any]) -> Section:
    config, pixels = report["config"], report["image_size"] ** 2
    num = sum(each["num_examples"] + each["num_validation_examples"] for each in report["clients"])
    shards = report["traffic"].get("upload/shards", 0) / max(1, len(report["rounds"])) / max(1, num)
    packed = " with Zstandard" if config["compress"] else ""
    return Section(
        title="What left the devices",
        headings=("bodies of requests and answers", "bytes"),
        rows=[(kind, f"{num_bytes:,}") for kind, num_bytes in report["traffic"].items()],
        notes=(
            "Feature maps, labels and logits of every training and validation image, in every round. Images "
            "and the weights of the devices' networks stayed.",
            f"An image of this size has {format_bytes(3 * pixels)}, its features {format_bytes(64 * pixels)} "
            f"in float32; as {config['codec']}{packed} they took {format_bytes(shards)} a sample and round, "
            "logits and labels included. Features of a first convolution show much of the image: treat them "
            "as you would treat the image.",
        ),
    )


def _settings(report: Mapping[str, Any]) -> Section:
    settings = {**report["config"], **report["machine"], **report["versions"]}
    return Section(
        title="Settings",
        rows=[(name, str(value)) for name, value in settings.items()],
        notes=(
            "Validation images are never trained on. Test images are used once, at the end. Source: Group "
            "Knowledge Transfer (FedGKT), NeurIPS 2020, Algorithm 1.",
        ),
    )


def _figures(report: Mapping[str, Any]) -> dict[str, Figure]:
    def column(name: str, scale: float = 1.0) -> list[float]:
        return [scale * line[name] for line in report["rounds"]]

    counts = {client["client_id"]: client["class_counts"] for client in report["clients"]}
    return {
        "accuracy": _accuracy_figure(report, column("validation_accuracy", 100)),
        "loss": _loss_figure(column("edge_loss"), column("train_loss"), column("validation_loss")),
        "bytes": stacked_figure(
            "Bytes in each round, all devices",
            "megabytes",
            Series("up: features, logits, labels", column("upload_bytes", 1e-6), BLUE),
            Series("down: soft labels", column("download_bytes", 1e-6), ORANGE),
        ),
        "seconds": stacked_figure(
            "Seconds in each phase",
            "seconds",
            Series("devices train and upload", column("edge_seconds"), ORANGE),
            Series("server trains", column("server_seconds"), BLUE),
        ),
        "split": split_figure(counts, report["class_names"], "Training samples of each class on each device"),
    }


def _loss_figure(devices: list[float], training: list[float], validation: list[float]) -> Figure:
    """Draw what devices and server minimise: not the same, and not of one size, so not on one axis."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_lines(left, "Loss of the devices", "loss (Eq. 7)", Series("training", devices, ORANGE, "s"))
    draw_lines(
        right,
        "Loss of the server",
        "loss",
        Series("training", training, BLUE),
        Series("validation", validation, GREEN, "^"),
    )
    return figure


def _accuracy_figure(report: Mapping[str, Any], accuracies: list[float]) -> Figure:
    config = report["config"]
    test, alone = 100 * report["test_accuracy"], 100 * report["edge_only_test_accuracy"]
    figure, axes = titled_axes(7.2, 4.2)
    draw_lines(
        axes,
        f"{Path(config['dataset']).name}: accuracy of the combined models",
        "accuracy (%)",
        Series(f"extractor + {config['server_network']}, validation", accuracies, BLUE),
        top=102,
    )
    axes.axhline(test, color=GREEN, linestyle="--", label=f"the same, test: {test:.1f} %")
    rounds = format_span(report["edge_only_rounds"])
    label = f"{config['edge_network']} alone on each device, {rounds} rounds, test: {alone:.1f} %"
    axes.axhline(alone, color=ORANGE, linestyle=":", linewidth=2, label=label)
    if (simple := report["logistic_regression_test_accuracy"]) is not None:
        label = f"logistic regression on each device's pixels, test: {100 * simple:.1f} %"
        axes.axhline(100 * simple, color=GRAY, linestyle="-.", label=label)
    axes.legend(frameon=False, loc="best")
    return figure
