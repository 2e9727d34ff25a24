"""The edge networks beside ResNet-56 and ResNet-110: what one training step costs, as one document."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkt_core.bundle.manifest import ORT_TRAINING, PORTABLE
from gkt_core.networks import EDGE_NETWORKS, FULL_NETWORKS, NARROW_NETWORKS
from gkt_core.nn.execution import torch_threads
from profiling.counted.network_cost import EXTRACTOR, NETWORK_NAMES, NetworkCost, count_network
from profiling.counted.run_cost import run_totals
from profiling.device.bundles import export_compared
from profiling.device.compare.options import CompareOptions
from profiling.device.compare.ratios import ratios
from profiling.device.peak_memory import engine_peak_bytes, pytorch_peak_bytes
from profiling.device.training_steps import (
    ALPHA,
    LEARNING_RATE,
    TEMPERATURE,
    TrainingBatch,
    engine_step,
    network_step,
)
from profiling.frame.measurement import Announce
from profiling.frame.measuring.pinning import pinned
from profiling.frame.measuring.step_time import StepTime, noise_report, time_interleaved

PYTORCH = "pytorch"
_EDGES = (*EDGE_NETWORKS, *NARROW_NETWORKS)
TRAINABLE = (*_EDGES, *FULL_NETWORKS)
# Of a turn, for each network and engine; a step of ResNet-56 takes about so long.
_FILL_MS = 1000.0
# In this order in every turn of the timing.
TIMED = (
    *((name, engine) for name in _EDGES for engine in (ORT_TRAINING, PORTABLE, PYTORCH)),
    *((name, engine) for name in FULL_NETWORKS for engine in (ORT_TRAINING, PYTORCH)),
    (EXTRACTOR, PYTORCH),
)
_ROLES = dict.fromkeys(_EDGES, "edge") | dict.fromkeys(FULL_NETWORKS, "full")


def compare_networks(options: CompareOptions, announce: Announce) -> dict[str, Any]:
    """Count, time and weigh the networks of the paper.

    Raises:
        RunFailedError: A measuring process died.
    """
    announce("counting parameters and MACs")
    costs = {
        name: count_network(name, num_classes=options.num_classes, image_size=options.image_size)
        for name in NETWORK_NAMES
    }
    with tempfile.TemporaryDirectory() as folder:
        announce("exporting each network for ONNX Runtime")
        bundles = export_compared(TRAINABLE, Path(folder), options)
        memory = _peak_memory(options, bundles, announce) if options.with_memory else {}
        with pinned(options.threads if options.is_pinned else 10**6) as cores:
            times = _time_steps(options, bundles, announce)
    return {
        "networks": [_network_entry(cost, times, memory) for cost in costs.values()],
        "ratios": ratios(list(costs.values()), times),
        "run": run_totals(options.run, costs, num_classes=options.num_classes, image_size=options.image_size),
        "noise": noise_report({f"{name} on {engine}": time for (name, engine), time in times.items()}),
        "not_measured": [
            *([] if options.with_memory else ["peak memory (--no-memory)"]),
            *([] if options.is_pinned else ["on pinned cores (give --pin)"]),
        ],
        "settings": {
            "pinned_cores": cores if options.is_pinned else None,
            "step": "forward, loss, backward, Adam; wall-clock time on the CPU, float32, interleaved "
            "round-robin",
            "turn": f"short steps several times, to about {_FILL_MS:.0f} ms",
            "edge_loss": "cross entropy + alpha x T^2 x KL(server || device)",
            "full_loss": "cross entropy (on ort_training with alpha = 0 in the same graph)",
            "alpha": ALPHA,
            "temperature": TEMPERATURE,
            "learning_rate": LEARNING_RATE,
            "units": "MACs and FLOPs are for one sample, times for one batch; FLOPs = 2 x MACs",
        },
    }


def _time_steps(
    options: CompareOptions, bundles: Mapping[str, Path], announce: Announce
) -> dict[tuple[str, str], StepTime]:
    """Time one training step of each network and engine in :data:`TIMED`, interleaved in one run."""
    batch = TrainingBatch.random(options.batch_size, options.image_size, options.num_classes)
    turns = options.warmup + options.steps
    with torch_threads(options.threads):
        steps = {
            (name, engine): engine_step(
                bundles[name],
                batch,
                engine=engine,
                num_threads=options.threads,
                # FedAvg's devices have no teacher.
                alpha=ALPHA if name in _EDGES else 0.0,
            )
            if engine != PYTORCH
            else network_step(name, batch)
            for name, engine in TIMED
        }
        return time_interleaved(
            steps,
            num_steps=options.steps,
            num_warmup=options.warmup,
            fill_ms=_FILL_MS,
            on_turn=lambda turn: announce(f"timing {len(TIMED)} training steps in turn: {turn} of {turns}"),
        )


def _peak_memory(
    options: CompareOptions, bundles: Mapping[str, Path], announce: Announce
) -> dict[tuple[str, str], int]:
    peaks = {}
    for name, engine in TIMED:
        announce(f"memory of {name} on {engine}, in a fresh process")
        if engine != PYTORCH:
            peaks[name, engine] = engine_peak_bytes(
                bundles[name], engine=engine, batch_size=options.batch_size, threads=options.threads
            )
        else:
            peaks[name, engine] = pytorch_peak_bytes(name, options)
    return peaks


def _network_entry(
    cost: NetworkCost,
    times: Mapping[tuple[str, str], StepTime],
    memory: Mapping[tuple[str, str], int],
) -> dict[str, Any]:
    entry = dataclasses.asdict(cost)
    entry["role"] = _ROLES.get(cost.name, "split learning's device part")
    entry["step_ms"] = {
        engine: time.to_dict() for (network, engine), time in times.items() if network == cost.name
    }
    by_engine = {engine: size for (network, engine), size in memory.items() if network == cost.name}
    # What a device would run, where it was measured; TIMED has it first.
    entry["peak_memory_bytes"] = next(iter(by_engine.values()), None)
    entry["peak_memory_bytes_by_engine"] = by_engine
    return entry
