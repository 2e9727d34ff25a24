"""One measurement of an engine, in a fresh process that imports what a device has."""

from __future__ import annotations

import contextlib
import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiling.device.edge.conditions import EnergyMeter, read_conditions
from profiling.device.edge.memory import peak_bytes, resident_bytes
from profiling.frame.measuring.fresh_process import answer
from profiling.frame.measuring.pinning import pinned

PROBE = "profiling.device.edge.probe"


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """What to measure.

    Attributes:
        bundle: Folder of the artifacts.
        engine: Which of the bundle's engines; None for the fastest that is installed.
        batch_size: Samples in one call.
        threads: CPU threads of the engine.
        workload: One of :data:`profiling.device.edge.workloads.WORKLOADS`.
        warmup: Calls after the first one that do not count.
        steps: Calls that do; 0 for the first call only.
        sustained_seconds: Instead of ``steps``: how long to go on without a pause.
        codec: How features are packed.
        rest_size: Samples of a smaller call after all of these, and of one more of the full size, as the last
            batch of an epoch has; 0 for none.
        is_pinned: Whether to keep the process on as many cores as it has threads.
    """

    bundle: str
    engine: str | None
    batch_size: int
    threads: int
    workload: str = "train_step"
    warmup: int = 0
    steps: int = 0
    sustained_seconds: float = 0.0
    codec: str = "fp32"
    rest_size: int = 0
    is_pinned: bool = False


def run_probe(spec: ProbeSpec) -> dict[str, Any]:
    """Measure in this process.

    Returns:
        ``open_ms``, ``cold_ms``, ``warm_ms`` (a list), ``memory``, ``joules``, ``windows``, ``engine`` and
        ``pinned_cores``.

    Raises:
        GKTError: The bundle or the engine cannot be used.
    """
    memory: dict[str, int | None] = {"start_bytes": resident_bytes()}
    with pinned(spec.threads) if spec.is_pinned else contextlib.nullcontext() as cores:
        return {**_measure(spec, memory), "pinned_cores": cores}


def _measure(spec: ProbeSpec, memory: dict[str, int | None]) -> dict[str, Any]:
    started = time.perf_counter_ns()
    # Imported here: what an engine takes to load is part of the cold start.
    from edge_runtime import open_engine  # noqa: PLC0415
    from gkt_core.bundle.manifest import load_bundle  # noqa: PLC0415
    from profiling.device.edge.workloads import make_workload  # noqa: PLC0415

    bundle = load_bundle(Path(spec.bundle))
    engine = open_engine(
        bundle, checkpoint=None, num_threads=spec.threads, learning_rate=1e-3, engine=spec.engine
    )
    open_ms = (time.perf_counter_ns() - started) / 1e6
    memory["opened_bytes"] = resident_bytes()
    prepared = functools.partial(make_workload, spec.workload, engine, bundle.manifest, codec=spec.codec)
    call = prepared(batch_size=spec.batch_size)
    cold_ms = _milliseconds(call)
    memory["first_call_bytes"] = resident_bytes()
    for _ in range(spec.warmup):
        call()
    memory["warm_bytes"] = resident_bytes()
    energy = EnergyMeter()
    warm_ms = [_milliseconds(call) for _ in range(spec.steps)]
    joules = energy.joules() if spec.steps else None
    windows = _sustain(call, spec.sustained_seconds) if spec.sustained_seconds > 0 else []
    if spec.rest_size:
        prepared(batch_size=spec.rest_size)()
        call()
    memory["end_bytes"], memory["peak_bytes"] = resident_bytes(), peak_bytes()
    return {
        "engine": engine.name,
        "open_ms": open_ms,
        "cold_ms": cold_ms,
        "warm_ms": warm_ms,
        "memory": memory,
        "joules": joules,
        "windows": windows,
    }


def _milliseconds(call: Any) -> float:
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) / 1e6


def _sustain(call: Any, seconds: float, num_windows: int = 20) -> list[dict[str, Any]]:
    """Call without a pause, and look at the processor after each twentieth of the time."""
    begin = time.perf_counter()
    windows: list[dict[str, Any]] = []
    for window in range(1, num_windows + 1):
        samples: list[float] = []
        while not samples or time.perf_counter() - begin < seconds * window / num_windows:
            samples.append(_milliseconds(call))
        conditions = read_conditions()
        windows.append(
            {
                "second": time.perf_counter() - begin,
                "samples_ms": samples,
                "frequency_mhz": conditions.frequency_mhz,
                "temperature_celsius": conditions.temperature_celsius,
            }
        )
    return windows


if __name__ == "__main__":
    answer(lambda spec: run_probe(ProbeSpec(**spec)))
