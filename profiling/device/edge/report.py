"""``gkt profile edge``: on the device itself."""

from __future__ import annotations

from typing import Any

from profiling.device.edge.options import EdgeOptions
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.measurement import Announce, Measurement
from profiling.frame.measuring.step_time import noise_note
from profiling.frame.plot_style import BLUE
from profiling.frame.sections import Document, Plot, Section
from profiling.frame.units import format_bytes

NOT_MEASURED = "not measured"
_WORDS = {
    "train_step": "training step",
    "extract": "extraction",
    "pack": "packing",
    "augment": "augmentation",
}


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
    sustained = document["sustained"]
    if sustained is None:
        bars = [
            Bar(
                _WORDS[workload["name"]],
                workload["warm_ms"]["median_ms"],
                interval=(workload["warm_ms"]["low_ms"], workload["warm_ms"]["high_ms"]),
                note=f"p95 {workload['warm_ms']['p95_ms']:,.1f}",
            )
            for workload in document["workloads"]
        ]
        title = f"{document['network']}, engine {document['engine']}"
        return bar_figure(title, "milliseconds a batch: median with confidence interval, p95", bars)
    from matplotlib.figure import Figure  # noqa: PLC0415 - a device has none

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    seconds = [window["second"] for window in sustained["windows"]]
    axes.plot(seconds, [window["median_ms"] for window in sustained["windows"]], color=BLUE, marker="o")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds of training without a pause")
    axes.set_ylabel("step, milliseconds")
    axes.set_title("A training step over time")
    return figure


class Edge(Measurement[EdgeOptions]):
    """Measure on this device what a training step, extraction and packing cost.

    Needs what a device has: gkt-edge[edge], no PyTorch. Each workload runs in fresh processes, for its cold
    start and its memory. HTML and PNG need gkt-edge[profile]; write --out edge.json here and make the page
    elsewhere with gkt profile show edge.json --out edge.html.
    """

    name = "edge"
    options = EdgeOptions
    example = "gkt profile edge --artifacts artifacts --out edge.json"
    extra = "edge"
    quick = ("--sustained-seconds", "1", "--steps", "5", "--cold-runs", "1")
    not_measured = (
        "loading images; the network",
        "what real images compress to: packing is timed on features of random images",
        "the disk's part of a cold start: files are in the page cache",
        "any device but this one",
    )
    plots = (Plot("Time of a training step, of extraction and of packing", _draw),)

    def measure(self, options: EdgeOptions, announce: Announce) -> dict[str, Any]:
        """Measure in fresh processes."""
        from profiling.device.edge.measure import measure_edge  # noqa: PLC0415 - imports an engine

        return measure_edge(options, announce)

    def title(self, document: Document) -> str:
        """Name network and engine."""
        return f"{document['network']} on this device, engine {document['engine']}"

    def sections(self, document: Document) -> list[Section]:
        """Time, memory, throttling, contention, sizes, conditions."""
        parts = [_times(document), _memory(document)]
        if document["sustained"] is not None:
            parts.append(_sustained(document["sustained"]))
        if document.get("contention") is not None:
            parts.append(_contention(document["contention"]))
        return [*parts, _sizes(document), _conditions(document)]
