"""Times, memory and the machine's bound of each engine."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from gkt_core.bundle.manifest import ORT_TRAINING, PORTABLE
from gkt_core.config.allocator import TRAINING_ALLOCATOR
from profiling.counted.network_cost import count_network
from profiling.device.bundles import export_compared
from profiling.device.engines.device_memory import device_run_peak_bytes
from profiling.device.engines.names import CHANNELS_LAST, MEMORY_TARGETS_BYTES, NETWORK, PYTORCH, TARGETS
from profiling.device.engines.options import EnginesOptions
from profiling.device.peak_memory import engine_peak_bytes, pytorch_peak_bytes
from profiling.frame.machine import num_usable_cores
from profiling.frame.measurement import Announce
from profiling.frame.measuring.fresh_process import measure_fresh
from profiling.frame.measuring.step_time import StepTime, noise_report

_SMALL_BATCH = 16


def measure_engines(options: EnginesOptions, announce: Announce) -> dict[str, Any]:
    """Time and weigh a network's training step on each engine, beside PyTorch's and the machine's bound.

    Raises:
        RunFailedError: A measuring process died.
    """
    name = options.edge_network
    cost = count_network(name, num_classes=options.num_classes, image_size=options.image_size)
    with tempfile.TemporaryDirectory() as folder:
        announce(f"exporting {name} for both engines")
        bundle = export_compared((name,), Path(folder), options)[name]
        timed = _timed(options, bundle, announce)
        memory = _memory(options, bundle, announce) if options.with_memory else None
        device_peak = None
        if options.with_device_run:
            announce("memory of gkt edge run, with a server of its own")
            device_peak = device_run_peak_bytes(Path(folder, "run"), options)
    document = {
        "step_ms": timed["step_ms"],
        "pytorch_layouts": timed["layouts"],
        "sgemm": _bound(timed, cost.train_flops * options.batch_size),
        "extraction_ms": timed["extraction_ms"],
        "batch_sizes": timed["batch_sizes"],
        "threads": timed["threads"],
        "peak_memory_bytes": memory and memory["by_engine"],
        "portable_peak_memory_bytes_by_batch_size": memory and memory["by_batch_size"],
        "edge_run_peak_memory_bytes": device_peak,
    }
    return {
        **document,
        "targets": _targets(document) if name == NETWORK else [],
        "noise": noise_report(
            {f"{name}'s step": StepTime(**time) for name, time in timed["step_ms"].items()}
        ),
        "not_measured": [
            *([] if options.with_memory else ["peak memory (--no-memory)"]),
            *([] if device_peak is not None else ["memory of gkt edge run"]),
            *([] if timed["threads"] else ["two threads: this process may use one core"]),
        ],
        "settings": {
            "network": name,
            "step": "forward, loss with distillation (ResNet-56 and -110: cross entropy), backward, Adam; "
            "float32, interleaved round-robin",
            "allocator": TRAINING_ALLOCATOR,
            "memory": "peak of a fresh process with the default allocator, three steps",
        },
    }


def _timed(options: EnginesOptions, bundle: Path, announce: Announce) -> dict[str, Any]:
    """All timings, from a process with the tuned allocator."""
    threads = str(options.threads)
    timed: dict[str, Any] = measure_fresh(
        "profiling.device.engines.probe",
        {**dataclasses.asdict(options), "bundle": str(bundle), "max_threads": min(2, num_usable_cores())},
        what="the timing process",
        environment={**TRAINING_ALLOCATOR, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
        announce=announce,
    )
    return timed


def _memory(options: EnginesOptions, bundle: Path, announce: Announce) -> dict[str, dict[str, int]]:
    def engine(name: str, batch_size: int) -> int:
        announce(f"memory of {name} with {batch_size} samples, in a fresh process")
        return engine_peak_bytes(bundle, engine=name, batch_size=batch_size, threads=options.threads)

    by_engine = {name: engine(name, options.batch_size) for name in (PORTABLE, ORT_TRAINING)}
    announce("memory of pytorch, in a fresh process")
    by_engine[PYTORCH] = pytorch_peak_bytes(options.edge_network, options)
    sizes = sorted({_SMALL_BATCH, options.batch_size})
    by_batch_size = {
        str(size): by_engine[PORTABLE] if size == options.batch_size else engine(PORTABLE, size)
        for size in sizes
    }
    return {"by_engine": by_engine, "by_batch_size": by_batch_size}


def _bound(timed: dict[str, Any], flops: int) -> dict[str, Any]:
    """Compute what a step would take if all of it were one large matrix product, by the faster library."""
    library, time = min(timed["sgemm_ms"].items(), key=lambda item: item[1]["median_ms"])
    flops_per_second = timed["sgemm_flops"] / time["median_ms"] * 1e3
    return {
        "library": library,
        "product_ms": time,
        "gflops_per_second": flops_per_second / 1e9,
        "step_gflops": flops / 1e9,
        "bound_ms": flops / flops_per_second * 1e3,
    }


def _targets(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Each quantity that has a target: value, at most, aim, and whether it is met."""
    median = {name: time["median_ms"] for name, time in document["step_ms"].items()}
    extraction = {name: time["median_ms"] for name, time in document["extraction_ms"].items()}
    fastest = min(extraction[PYTORCH], extraction[CHANNELS_LAST])
    over = {
        "ort_training": median[ORT_TRAINING],
        CHANNELS_LAST: median[CHANNELS_LAST],
        "pytorch_resnet110": median["pytorch_resnet110"],
        "sgemm_bound": document["sgemm"]["bound_ms"],
    }
    values = {f"portable_over_{name}": median[PORTABLE] / value for name, value in over.items()}
    values["extraction_over_pytorch"] = extraction[PORTABLE] / fastest
    rows = [_target(name, value, *TARGETS[name]) for name, value in values.items()]
    if document["threads"]:
        worst = max(entry["two_over_one"] for entry in document["threads"])
        rows.append(_target("two_threads_over_one", worst, 1.0, None))
    for size, peak in (document["portable_peak_memory_bytes_by_batch_size"] or {}).items():
        if int(size) in MEMORY_TARGETS_BYTES:
            limit, aim = MEMORY_TARGETS_BYTES[int(size)]
            rows.append(_target(f"portable_peak_memory_bytes_batch_{size}", peak, limit, aim))
    return rows


def _target(name: str, value: float, limit: float | None, aim: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "at_most": limit,
        "aim": aim,
        "is_met": None if limit is None else value <= limit,
        "is_aim_met": None if aim is None else value <= aim,
    }
