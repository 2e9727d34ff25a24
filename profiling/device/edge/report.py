"""``gkt profile edge``: on the device itself."""

from __future__ import annotations

from typing import Any

from profiling.device.edge.options import EdgeOptions
from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.measuring.step_time import noise_note
from profiling.frame.plot_style import BLUE, titled_axes
from profiling.frame.tables import named, names_and_values, table

_WORDS = {
    "train_step": "training step",
    "extract": "extraction",
    "pack": "packing",
    "augment": "augmentation",
}


def _times(document: Document) -> Section:
    settings, workloads = document["settings"], document["workloads"]
    pinned = settings["pinned_cores"]
    where = "not pinned" if pinned is None else f"pinned to {', '.join(map(str, pinned))}"
    return table(
        f"Milliseconds a batch of {settings['batch_size']}, {settings['image_size']} px, "
        f"{settings['threads']} thread(s), {where}",
        {
            "": "{words}",
            "open": "{open_ms[median_ms]:,.0f}",
            "first\ncall": "{cold_ms[median_ms]:,.1f}",
            "warm\nmedian": "{warm_ms:median}",
            "p90": "{warm_ms[p90_ms]:,.1f}",
            "p95": "{warm_ms[p95_ms]:,.1f}",
            "IQR": "{warm_ms[iqr_ms]:,.1f}",
            "n": "{warm_ms[n]}",
            "images/s": "{images_per_second:,.0f}",
        },
        ({"words": _WORDS[workload["name"]], **workload} for workload in workloads),
        notes=(
            noise_note(document["noise"]),
            f"Open: imports, files and engine; open and first call are medians of "
            f"{workloads[0]['cold_ms']['n']} fresh processes, {settings['warmup']} calls of "
            f"warm-up do not count. Extraction: features and logits; packing: one shard of them as "
            f"{settings['codec']}, safetensors, Zstandard; augmentation: random crop and flip of a batch.",
        ),
    )


def _memory(document: Document) -> Section:
    stages = {
        "at the start": "{memory[start_bytes]:bytes}",
        "engine open": "{memory[opened_bytes]:bytes}",
        "after the first call": "{memory[first_call_bytes]:bytes}",
        "at the end": "{memory[end_bytes]:bytes}",
        "peak": "{memory[peak_bytes]:bytes}",
        "growth a warm call": "{memory[growth_bytes_per_call]:bytes}",
        "energy a call": "{joules_per_call:.2f}",
    }
    by_workload = table("", stages, document["workloads"]).rows
    return Section(
        title="Memory of a fresh process, and energy in J",
        headings=("", *(_WORDS[workload["name"]] for workload in document["workloads"])),
        rows=[(stage, *cells) for stage, *cells in zip(stages, *by_workload, strict=True)],
        notes=("Energy is the processor package's, whatever else ran on it included.",),
    )


def _sustained(document: Document) -> Section | None:
    if (sustained := document["sustained"]) is None:
        return None
    columns = {
        "second": "{second:.1f}",
        "median ms": "{median_ms:,.1f}",
        "n": "{n}",
        "MHz": "{frequency_mhz:,.0f}",
        "degrees C": "{temperature_celsius:,.0f}",
    }
    title = f"Training without a pause: the last fifth took {sustained['slowdown']:.2f} times the first"
    return table(title, columns, sustained["windows"])


def _contention(document: Document) -> Section | None:
    if (contention := document.get("contention")) is None:
        return None
    several = f"{contention['processes']} at once"
    return table(
        f"{contention['processes']} devices on this machine: a training step takes "
        f"{contention['factor']:.2f} times as long",
        {"": "{name}", "median ms": "{value:,.1f}"},
        names_and_values({"alone": contention["alone_ms"], several: contention["together_ms"]}),
    )


def _sizes(document: Document) -> Section:
    sizes = document["sizes"]
    packages = {f"package {name}": size for name, size in (sizes["install_bytes"] or {}).items()}
    weighed = {**sizes["bundle_bytes"], **packages, "all packages": sizes["total_install_bytes"]}
    title = f"Files of the bundle, and packages of [{sizes['extra']}]"
    return table(title, {"": "{name}", "size": "{value:bytes}"}, names_and_values(weighed))


def _conditions(document: Document) -> Section:
    return table(
        "The processor",
        {
            "": "{name}",
            "governor": "{governor}",
            "frequency, MHz": "{frequency_mhz:,.0f}",
            "temperature, degrees C": "{temperature_celsius:,.0f}",
        },
        named(document["conditions"]),
    )


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
    figure, axes = titled_axes(7.2, 3.4, "A training step over time")
    seconds = [window["second"] for window in sustained["windows"]]
    axes.plot(seconds, [window["median_ms"] for window in sustained["windows"]], color=BLUE, marker="o")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds of training without a pause")
    axes.set_ylabel("step, milliseconds")
    return figure


class Edge(Measurement[EdgeOptions]):
    """Measure on this device what a training step, extraction and packing cost.

    Needs what a device has: gkt-edge[edge], no PyTorch. Each workload runs in fresh processes, for its cold
    start and its memory. HTML and PNG need gkt-edge[profile]; write --out edge.json here and make the page
    elsewhere with gkt profile show edge.json --out edge.html.
    """

    name = "edge"
    options = EdgeOptions
    measured_by = "profiling.device.edge.measure:measure_edge"
    example = "gkt profile edge --artifacts artifacts --out edge.json"
    extra = "edge"
    quick = ("--sustained-seconds", "1", "--steps", "5", "--cold-runs", "1")
    not_measured = (
        "loading images; the network",
        "what real images compress to: packing is timed on features of random images",
        "the disk's part of a cold start: files are in the page cache",
        "any device but this one",
    )
    heading = "{network} on this device, engine {engine}"
    tables = (_times, _memory, _sustained, _contention, _sizes, _conditions)
    plots = (Plot("Time of a training step, of extraction and of packing", _draw),)
