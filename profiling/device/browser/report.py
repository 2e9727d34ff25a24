"""``gkt profile browser``: the portable engine in a page's worker, in Node and in Python."""

from __future__ import annotations

from typing import Any

from profiling.device.browser.options import BrowserOptions
from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.measuring.step_time import TIME_COLUMNS, noise_note
from profiling.frame.plot_style import BLUE, ORANGE
from profiling.frame.tables import table

_PLACES = {"python": "Python", "node": "Node", "chromium": "a page's worker in Chromium"}


def _steps(document: Document) -> Section:
    settings = document["settings"]
    rows = [
        {
            "name": _PLACES[place],
            **time,
            "over": document["over_python"][place],
            "peak": document["peak_memory_bytes"][place],
        }
        for place, time in document["step_ms"].items()
    ]
    empty = document["empty_page_memory_bytes"]
    beside = f", {empty / 1e6:.0f} MB of it before anything was loaded" if empty else ""
    return table(
        f"One training step of {settings['edge_network']}, batch {settings['batch_size']}, "
        f"{settings['threads']} thread(s)",
        {"in": "{name}", **TIME_COLUMNS, "over Python": "{over:.2f}", "peak memory": "{peak:bytes}"},
        rows,
        notes=(
            noise_note(document["noise"]),
            f"Memory is the whole process's; the page's, that of the one that holds page and worker{beside}.",
        ),
    )


def _draw(document: Document) -> Any:
    bars = [
        Bar(
            _PLACES[place],
            time["median_ms"],
            BLUE if place == "python" else ORANGE,
            interval=(time["low_ms"], time["high_ms"]),
        )
        for place, time in document["step_ms"].items()
    ]
    return bar_figure("A training step of the portable engine", "milliseconds, median and its interval", bars)


class Browser(Measurement[BrowserOptions]):
    """Measure a training step and its memory in a page's worker, in Node and in Python.

    The portable engine of each: onnxruntime-web (WebAssembly with SIMD), onnxruntime-node, onnxruntime. They
    have their turns, each in a fresh process. About five minutes on a machine that is left alone; in a clone
    of the repository, after make js-install.
    """

    name = "browser"
    options = BrowserOptions
    measured_by = "profiling.device.browser.measure:measure_browser"
    programs = ("node", "chromium")
    modules = ("playwright",)
    quick = (*("--image-size", "8", "--batch-size", "4", "--steps", "2", "--warmup", "1", "--turns", "1"),)
    not_measured = (
        "a phone: its processor is slower, and its browser another",
        "reading and augmenting photos, features, uploads",
        "WebGPU",
    )
    heading = "{settings[edge_network]} in a browser"
    tables = (_steps,)
    plots = (Plot("Time of a training step by place", _draw),)
