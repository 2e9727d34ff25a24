"""The report of ``gkt profile edge`` for a person."""

from __future__ import annotations

from typing import Any

from profiling.frame.sections import Document, Plot, Section, machine_section
from profiling.frame.step_time import noise_note
from profiling.frame.units import format_bytes

NOT_MEASURED = "not measured"
_WORDS = {
    "train_step": "training step",
    "extract": "extraction",
    "pack": "packing",
    "augment": "augmentation",
}


def title(document: Document) -> str:
    """Of the report."""
    return f"{document['network']} on this device, engine {document['engine']}"


def sections(document: Document) -> list[Section]:
    """Time, memory, sizes, conditions."""
    found = [_times(document), _memory(document)]
    if document["sustained"] is not None:
        found.append(_sustained(document["sustained"]))
    if document.get("contention") is not None:
        found.append(_contention(document["contention"]))
    return [*found, _sizes(document), _conditions(document), machine_section(document)]


def _times(document: Document) -> Section:
    settings = document["settings"]
    pinned = settings["pinned_cores"]
    where = "not pinned" if pinned is None else f"pinned to {', '.join(map(str, pinned))}"
    rows = []
    for workload in document["workloads"]:
        warm, cold = workload["warm_ms"], workload["cold_ms"]
        rows.append(
            (
                _WORDS[workload["name"]],
                f"{workload['open_ms']['median_ms']:,.0f}",
                f"{cold['median_ms']:,.1f}",
                f"{warm['median_ms']:,.1f}",
                f"{warm['p90_ms']:,.1f}",
                f"{warm['p95_ms']:,.1f}",
                f"{warm['iqr_ms']:,.1f}",
                str(warm["n"]),
                f"{workload['images_per_second']:,.0f}",
            )
        )
    return Section(
        title=f"Milliseconds a batch of {settings['batch_size']}, {settings['image_size']} px, "
        f"{settings['threads']} thread(s), {where}",
        headings=("", "open", "first\ncall", "warm\nmedian", "p90", "p95", "IQR", "n", "images/s"),
        rows=rows,
        notes=(
            noise_note(document["noise"]),
            f"Open: imports, files and engine; open and first call are medians of "
            f"{document['workloads'][0]['cold_ms']['n']} fresh processes, {settings['warmup']} calls of "
            f"warm-up do not count. Extraction: features and logits; packing: one shard of them as "
            f"{settings['codec']}, safetensors, Zstandard; augmentation: random crop and flip of a batch.",
        ),
    )


def _memory(document: Document) -> Section:
    workloads = document["workloads"]
    stages = {
        "start_bytes": "at the start",
        "opened_bytes": "engine open",
        "first_call_bytes": "after the first call",
        "end_bytes": "at the end",
        "peak_bytes": "peak",
        "growth_bytes_per_call": "growth a warm call",
    }
    rows = [
        (words, *(_bytes(workload["memory"][stage]) for workload in workloads))
        for stage, words in stages.items()
    ]
    joules = [workload["joules_per_call"] for workload in workloads]
    rows.append(("energy a call", *(NOT_MEASURED if value is None else f"{value:.2f} J" for value in joules)))
    return Section(
        title="Memory of a fresh process, and energy",
        headings=("", *(_WORDS[workload["name"]] for workload in workloads)),
        rows=rows,
        notes=("Energy is the processor package's, whatever else ran on it included.",),
    )


def _sustained(sustained: dict[str, Any]) -> Section:
    return Section(
        title=f"Training without a pause: the last fifth took {sustained['slowdown']:.2f} times the first",
        headings=("second", "median ms", "n", "MHz", "degrees C"),
        rows=[
            (
                f"{window['second']:.1f}",
                f"{window['median_ms']:,.1f}",
                str(window["n"]),
                _plain(window["frequency_mhz"]),
                _plain(window["temperature_celsius"]),
            )
            for window in sustained["windows"]
        ],
    )


def _contention(contention: dict[str, Any]) -> Section:
    return Section(
        title=f"{contention['processes']} devices on this machine: a training step takes "
        f"{contention['factor']:.2f} times as long",
        headings=("", "median ms"),
        rows=[
            ("alone", f"{contention['alone_ms']:,.1f}"),
            (f"{contention['processes']} at once", f"{contention['together_ms']:,.1f}"),
        ],
    )


def _sizes(document: Document) -> Section:
    sizes = document["sizes"]
    installed = sizes["install_bytes"] or {}
    rows = [(name, format_bytes(num_bytes)) for name, num_bytes in sizes["bundle_bytes"].items()]
    rows += [(f"package {name}", format_bytes(num_bytes)) for name, num_bytes in installed.items()]
    total = sizes["total_install_bytes"]
    rows.append(("all packages", NOT_MEASURED if total is None else format_bytes(total)))
    return Section(
        title=f"Files of the bundle, and packages of [{sizes['extra']}]", headings=("", ""), rows=rows
    )


def _conditions(document: Document) -> Section:
    before, after = document["conditions"]["before"], document["conditions"]["after"]
    return Section(
        title="The processor",
        headings=("", "before", "after"),
        rows=[
            (name.replace("_", " "), _plain(before[name]), _plain(after[name]))
            for name in ("governor", "frequency_mhz", "temperature_celsius")
        ],
    )


def _bytes(num_bytes: float | None) -> str:
    return NOT_MEASURED if num_bytes is None else format_bytes(num_bytes)


def _plain(value: Any) -> str:
    if value is None:
        return NOT_MEASURED
    return value if isinstance(value, str) else f"{value:,.0f}"


def _draw(document: Document) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415 - a device has none

    from profiling.frame.plot_style import BLUE, INK, ORANGE  # noqa: PLC0415

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    sustained = document["sustained"]
    if sustained is not None:
        seconds = [window["second"] for window in sustained["windows"]]
        axes.plot(seconds, [window["median_ms"] for window in sustained["windows"]], color=BLUE, marker="o")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds of training without a pause")
        axes.set_ylabel("step, milliseconds")
        axes.set_title("A training step over time")
        return figure
    positions = range(len(document["workloads"]))[::-1]
    for position, workload in zip(positions, document["workloads"], strict=True):
        warm = workload["warm_ms"]
        axes.barh(position, warm["median_ms"], color=BLUE)
        axes.plot([warm["low_ms"], warm["high_ms"]], [position, position], color=INK, linewidth=2)
        axes.plot(warm["p95_ms"], position, marker="|", color=ORANGE, markersize=18)
    axes.set_yticks(positions, [_WORDS[workload["name"]] for workload in document["workloads"]])
    axes.set_xlabel("milliseconds a batch: median with confidence interval, p95")
    axes.set_title(f"{document['network']}, engine {document['engine']}")
    return figure


PLOTS = (Plot("Time of a training step, of extraction and of packing", _draw),)
