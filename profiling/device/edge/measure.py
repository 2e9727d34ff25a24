"""All measurements of ``gkt profile edge``, each in a fresh process, as one document."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gkt_core.bundle.manifest import Bundle, load_bundle
from profiling.device.edge.conditions import EnergyMeter, read_conditions
from profiling.device.edge.contention import measure_contention
from profiling.device.edge.install_size import install_sizes
from profiling.device.edge.options import EdgeOptions
from profiling.device.edge.probe import PROBE, ProbeSpec
from profiling.device.edge.workloads import WORKLOADS
from profiling.frame.machine import describe_machine
from profiling.frame.measurement import Announce
from profiling.frame.measuring.fresh_process import measure_fresh
from profiling.frame.measuring.step_time import noise_report, summarise

# More than any probe takes; a hung engine must not hang the command.
_PROBE_SECONDS = 3600.0
# Long enough for the start of several processes not to matter.
_CONTENTION_SECONDS = 6.0


def measure_edge(options: EdgeOptions, announce: Announce) -> dict[str, Any]:
    """Measure this device.

    Raises:
        InputError: The folder is no bundle.
        RunFailedError: A probe died.
    """
    bundle = load_bundle(options.artifacts)
    before, energy = dataclasses.asdict(read_conditions()), EnergyMeter()
    workloads, summaries = [], {}
    engine, pinned = "", None
    for name in WORKLOADS:
        announce(f"{name}: {options.steps} calls, and {options.cold_runs} cold starts")
        runs = [_probe(options, name, options.steps if run == 0 else 0) for run in range(options.cold_runs)]
        engine, pinned = runs[0]["engine"], runs[0]["pinned_cores"]
        workloads.append(_workload(name, runs, options))
        summaries[name] = summarise(runs[0]["warm_ms"])
    sustained = None
    if options.sustained_seconds > 0:
        announce(f"training for {options.sustained_seconds:.0f} s without a pause")
        run = _probe(options, "train_step", 0, options.sustained_seconds)
        sustained = _sustained(run["windows"])
    contention = None
    if options.processes > 1:
        announce(f"training in {options.processes} processes at once")
        # Pinned, all of them would sit on the same cores.
        free = dataclasses.replace(options, is_pinned=False)
        contention = measure_contention(
            lambda seconds: _probe(free, "train_step", 0, seconds)["windows"],
            options.processes,
            options.sustained_seconds or _CONTENTION_SECONDS,
        )
    return {
        "engine": engine,
        "network": bundle.manifest.edge_network,
        "workloads": workloads,
        "sustained": sustained,
        "contention": contention,
        "sizes": _sizes(bundle, engine),
        "conditions": {"before": before, "after": dataclasses.asdict(read_conditions())},
        "noise": noise_report(summaries),
        "not_measured": _not_measured(options, energy.is_readable, sustained, before),
        "settings": {
            "engine": options.engine_name,
            "image_size": bundle.manifest.image_size,
            "num_classes": bundle.manifest.num_classes,
            "pinned_cores": pinned,
        },
    }


def _probe(options: EdgeOptions, workload: str, steps: int, sustained_seconds: float = 0.0) -> dict[str, Any]:
    spec = ProbeSpec(
        bundle=str(options.artifacts.absolute()),
        engine=options.engine_name,
        workload=workload,
        batch_size=options.batch_size,
        threads=options.threads,
        warmup=options.warmup if steps or sustained_seconds else 0,
        steps=steps,
        sustained_seconds=sustained_seconds,
        codec=options.codec,
        is_pinned=options.is_pinned,
    )
    answered: dict[str, Any] = measure_fresh(
        PROBE,
        dataclasses.asdict(spec),
        what=f"the measuring process of {workload}",
        timeout_seconds=_PROBE_SECONDS + sustained_seconds,
    )
    return answered


def _workload(name: str, runs: Sequence[Mapping[str, Any]], options: EdgeOptions) -> dict[str, Any]:
    warm = summarise(runs[0]["warm_ms"])
    memory = dict(runs[0]["memory"])
    growth = None
    if memory["end_bytes"] is not None and memory["warm_bytes"] is not None:
        growth = (memory["end_bytes"] - memory["warm_bytes"]) / options.steps
    joules = runs[0]["joules"]
    return {
        "name": name,
        "open_ms": summarise([run["open_ms"] for run in runs]).to_dict(),
        "cold_ms": summarise([run["cold_ms"] for run in runs]).to_dict(),
        "warm_ms": warm.to_dict(),
        "images_per_second": options.batch_size / warm.median_ms * 1e3,
        "peak_memory_bytes": memory["peak_bytes"],
        "memory": {**memory, "growth_bytes_per_call": growth},
        "joules_per_call": None if joules is None else joules / options.steps,
    }


def _sustained(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Twenty medians over time; ``slowdown`` compares the last fifth with the first."""
    shown = [
        {
            "second": round(window["second"], 2),
            "n": len(window["samples_ms"]),
            "median_ms": round(statistics.median(window["samples_ms"]), 4),
            "frequency_mhz": window["frequency_mhz"],
            "temperature_celsius": window["temperature_celsius"],
        }
        for window in windows
    ]
    fifth = max(1, len(shown) // 5)
    first = statistics.median(window["median_ms"] for window in shown[:fifth])
    last = statistics.median(window["median_ms"] for window in shown[-fifth:])
    return {"windows": shown, "slowdown": round(last / first, 4)}


def _sizes(bundle: Bundle, engine: str) -> dict[str, Any]:
    # The training build also runs the portable step: what counts is what is installed.
    extra = "edge" if "onnxruntime-training-cpu" in describe_machine()["packages"] else "edge-portable"
    installed = install_sizes(extra)
    return {
        "bundle_bytes": {
            name: bundle.manifest.file(name).num_bytes for name in bundle.manifest.engine_files(engine)
        },
        "extra": extra,
        "install_bytes": installed,
        "total_install_bytes": None if installed is None else sum(installed.values()),
    }


def _not_measured(
    options: EdgeOptions, has_energy: bool, sustained: Any, conditions: Mapping[str, Any]
) -> list[str]:
    return [
        *(f"{name} (the system does not say)" for name, value in conditions.items() if value is None),
        *([] if has_energy else ["energy (no RAPL counter that this user may read)"]),
        *([] if sustained else ["throttling (give --sustained-seconds)"]),
        *([] if options.processes > 1 else ["several devices on one machine (give --processes)"]),
        *([] if options.is_pinned else ["on pinned cores (give --pin)"]),
    ]
