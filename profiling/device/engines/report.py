"""``gkt profile engines``: the device's engines beside PyTorch at its best."""

from __future__ import annotations

from typing import Any

from profiling.device.engines.options import EnginesOptions
from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.measuring.step_time import TIME_COLUMNS, noise_note
from profiling.frame.plot_style import BLUE, ORANGE
from profiling.frame.tables import named, names_and_values, table
from profiling.frame.units import format_bytes


def _targets(document: Document) -> Section:
    def cell(name: str, value: float | None) -> str:
        if value is None:
            return ""
        return format_bytes(value) if "bytes" in name else f"{value:.3f}"

    said = {True: "yes", False: "no", None: ""}
    return Section(
        title="Targets: the portable step over another, and its memory",
        headings=("quantity", "measured", "at most", "met", "aim", "met"),
        rows=[
            (
                row["name"].replace("_", " "),
                cell(row["name"], row["value"]),
                cell(row["name"], row["at_most"]),
                said[row["is_met"]],
                cell(row["name"], row["aim"]),
                said[row["is_aim_met"]],
            )
            for row in document["targets"]
        ],
        notes=(noise_note(document["noise"]),),
    )


def _times(document: Document) -> Section:
    settings, sgemm = document["settings"], document["sgemm"]
    layouts = ", ".join(f"{name} in {layout}" for name, layout in document["pytorch_layouts"].items())
    return table(
        f"One training step, batch {settings['batch_size']}, {settings['threads']} thread(s)",
        {"engine": "{name}", **TIME_COLUMNS},
        named(document["step_ms"]),
        notes=(
            f"Bound: {sgemm['step_gflops']:.2f} GFLOP at the {sgemm['gflops_per_second']:.0f} GFLOP/s that "
            f"sgemm reaches here ({sgemm['library']}), {sgemm['bound_ms']:.1f} ms.",
            f"Step = {settings['step']}. {layouts}, the faster layout of each.",
        ),
    )


def _extraction(document: Document) -> Section:
    title = f"Features and logits in eval mode, batch {document['settings']['batch_size']}"
    return table(title, {"engine": "{name}", **TIME_COLUMNS}, named(document["extraction_ms"]))


def _threads(document: Document) -> Section | None:
    if not document["threads"]:
        return None
    columns = {
        "batch": "{batch_size}",
        "one, ms": "{one_thread_ms[median_ms]:.2f}",
        "two, ms": "{two_threads_ms[median_ms]:.2f}",
        "two over one": "{two_over_one:.2f}",
    }
    return table("The portable step with one thread and with two", columns, document["threads"])


def _memory(document: Document) -> Section:
    batch_size = document["settings"]["batch_size"]
    peaks = {
        f"{engine}, batch {batch_size}": peak
        for engine, peak in (document["peak_memory_bytes"] or {}).items()
    }
    for size, peak in (document["portable_peak_memory_bytes_by_batch_size"] or {}).items():
        peaks.setdefault(f"portable, batch {size}", peak)
    peaks["a whole gkt edge run"] = document["edge_run_peak_memory_bytes"]
    columns = {"process": "{name}", "peak": "{value:bytes}"}
    return table("Peak memory of a fresh process", columns, names_and_values(peaks))


def _batch_sizes(document: Document) -> Section:
    return table(
        "Batch sizes of one session",
        {"batch": "{batch_size}", "first step, ms": "{first_ms:.1f}"},
        document["batch_sizes"],
        notes=("A first step of a size also takes the memory for it.",),
    )


def _draw_times(document: Document) -> Any:
    bars = [
        Bar(
            name,
            time["median_ms"],
            BLUE if name == "portable" else ORANGE,
            interval=(time["low_ms"], time["high_ms"]),
        )
        for name, time in document["step_ms"].items()
        if not name.endswith(("56", "110"))
    ]
    return bar_figure(
        f"A training step of ResNet-8, batch {document['settings']['batch_size']}",
        "milliseconds, median and its interval; dashed: the machine's bound",
        bars,
        marked=document["sgemm"]["bound_ms"],
        marked_note="sgemm",
    )


class Engines(Measurement[EnginesOptions]):
    """Measure ResNet-8's training step on both engines, beside PyTorch and the machine's bound.

    PyTorch gets its best setting: a tuned allocator, channels_last beside its default layout, the full
    networks in their faster one. Also extraction, memory, batch sizes from 1 to 256, one thread and two.
    About four minutes on a machine that is left alone.
    """

    name = "engines"
    options = EnginesOptions
    measured_by = "profiling.device.engines.measure:measure_engines"
    quick = (
        *("--image-size", "8", "--batch-size", "4", "--steps", "2", "--warmup", "1"),
        *("--no-memory", "--no-device-run"),
    )
    not_measured = (
        "torch.compile, and PyTorch in bfloat16",
        "loading and augmenting images, uploads, the server's share of the time",
        "the full networks on any engine but PyTorch (gkt profile compare has them on ONNX Runtime training)",
        "any machine but this one",
    )
    heading = "Engines that train {settings[network]}"
    tables = (_targets, _times, _extraction, _threads, _memory, _batch_sizes)
    plots = (Plot("Time of a training step by engine", _draw_times),)
