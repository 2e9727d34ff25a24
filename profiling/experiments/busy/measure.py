"""Measure ways to wait in turns, in processes of their own, and a demo alone and beside a busy core."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkt_core.config.waiting import PATIENT_THREADS, WAITING_VARIABLES
from profiling.experiments.busy.options import CHOSEN, BusyOptions
from profiling.experiments.busy.spinning import one_busy_core
from profiling.frame import Announce
from profiling.frame.measuring.fresh_process import measure_fresh
from profiling.frame.measuring.step_time import spread_of
from profiling.frame.processes import ProcessGroup, arguments

_NOTHING_SET: dict[str, str | None] = dict.fromkeys(WAITING_VARIABLES)
AS_IT_COMES, ONE_THREAD = "as_openmp_comes", "one_thread"
WAYS: Mapping[str, Mapping[str, str]] = {
    AS_IT_COMES: {},
    CHOSEN: PATIENT_THREADS,
    "spinning_1000_times": {"GOMP_SPINCOUNT": "1000"},
    "spinning_10000_times": {"GOMP_SPINCOUNT": "10000"},
    ONE_THREAD: PATIENT_THREADS,
}
_DEMO = {"limit": 400, "rounds": 1, "server_epochs": 2, "alone_rounds": 1}


def measure_busy(options: BusyOptions, announce: Announce) -> dict[str, Any]:
    """Measure all of it."""
    threads = options.threads or os.cpu_count() or 1
    alone: dict[str, list[float]] = {name: [] for name in WAYS}
    beside: dict[str, list[float]] = {name: [] for name in WAYS}
    spec = {"batch_size": options.batch_size, "image_size": options.image_size, "seconds": options.seconds}
    for repeat in range(options.repeats):
        for name, environment in WAYS.items():
            announce(f"{name.replace('_', ' ')}, turn {repeat + 1} of {options.repeats}")
            rates = measure_fresh(
                "profiling.experiments.busy.training",
                {**spec, "threads": 1 if name == ONE_THREAD else threads},
                what="a training",
                environment={**_NOTHING_SET, **environment},
            )
            alone[name].append(rates["alone"])
            beside[name].append(rates["beside_a_busy_core"])
    return {
        "ways": {
            name: {
                "environment": dict(WAYS[name]),
                "num_threads": 1 if name == ONE_THREAD else threads,
                "samples_per_second": spread_of(alone[name]),
                "samples_per_second_beside_a_busy_core": spread_of(beside[name]),
                "times_slower": spread_of(_ratios(alone[name], beside[name])),
                # Of the same turn, so that a machine that slows down slows both.
                "share_of_as_openmp_comes": spread_of(_ratios(alone[name], alone[AS_IT_COMES])),
            }
            for name in WAYS
        },
        "demo": _demos(options.demos, announce) if options.demos else None,
    }


def _demos(num: int, announce: Announce) -> dict[str, Any]:
    """Training seconds of a short demo, alone and beside a busy core in turn."""
    seconds: dict[str, list[float]] = {"alone": [], "beside_a_busy_core": []}
    with tempfile.TemporaryDirectory(prefix="gkt-busy-") as folder, ProcessGroup(Path(folder)) as processes:
        for number in range(1, num + 1):
            for name, measured in seconds.items():
                announce(f"demo {number} of {num}, {name.replace('_', ' ')}")
                out = Path(folder) / f"{name}-{number}"
                with one_busy_core() if name != "alone" else contextlib.nullcontext():
                    log = Path(folder) / f"{name}-{number}.log"
                    processes.run("gkt demo", arguments("demo", out=out, **_DEMO), log=log)
                report = json.loads((out / "report.json").read_text(encoding="utf-8"))
                measured.append(report["seconds"]["training"])
    return {
        **_DEMO,
        "training_seconds": {name: spread_of(values) for name, values in seconds.items()},
        "times_slower": spread_of(_ratios(seconds["beside_a_busy_core"], seconds["alone"])),
    }


def _ratios(left: list[float], right: list[float]) -> list[float]:
    return [one / other for one, other in zip(left, right, strict=True)]
