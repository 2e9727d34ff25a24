"""The edge networks beside ResNet-56 and ResNet-110: what one training step costs, as one document."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkt_core.bundle.manifest import ORT_TRAINING, PORTABLE
from gkt_core.config.run_config import check_image_size
from gkt_core.errors import ConfigError
from gkt_core.networks import EDGE_NETWORKS, FULL_NETWORKS, check_network
from profiling.counted.run_cost import RunSize, run_totals
from profiling.device.bundles import export_compared
from profiling.device.compare.ratios import BASE, ratios
from profiling.device.peak_memory import engine_peak_bytes, pytorch_peak_bytes
from profiling.frame.machine import describe_machine
from profiling.frame.pinning import pinned
from profiling.frame.step_time import noise_report, time_interleaved

if TYPE_CHECKING:
    from profiling.counted.network_cost import NetworkCost
    from profiling.device.training_steps import TrainingBatch
    from profiling.frame.step_time import StepTime

SCHEMA = "gkt-profile-compare/1"
PYTORCH = "pytorch"
TRAINABLE = (*EDGE_NETWORKS, *FULL_NETWORKS)
_EXTRACTOR = "extractor"
# Of a turn, for each network and engine; a step of ResNet-56 takes about so long.
_FILL_MS = 1000.0
# In this order in every turn of the timing.
TIMED = (
    *((name, engine) for name in EDGE_NETWORKS for engine in (ORT_TRAINING, PORTABLE, PYTORCH)),
    *((name, engine) for name in FULL_NETWORKS for engine in (ORT_TRAINING, PYTORCH)),
    (_EXTRACTOR, PYTORCH),
)

_ROLES = dict.fromkeys(EDGE_NETWORKS, "edge") | dict.fromkeys(FULL_NETWORKS, "full")
NOT_MEASURED = (
    "the full networks on the portable engine",
    "the extractor of split learning on ort_training, and what waiting for gradients costs it",
    "PyTorch with channels_last, torch.compile or a tuned memory allocator, which can be faster",
    "loading and augmenting images, extracting features for the upload, the server's share of the time",
    "energy (gkt profile edge reads it where the processor says)",
    "any machine but this one",
)


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What to compare, and how long.

    Attributes:
        num_classes: Width of the logits.
        image_size: Pixels; a multiple of 4.
        batch_size: Samples in a timed step.
        steps: Measured turns; in each, every network takes a step on each engine, and short steps several.
        warmup: Steps of each before measuring.
        threads: Threads of either engine.
        is_pinned: Whether to keep the process on as many cores as it has threads.
        with_memory: Whether to measure peak memory, in fresh processes.
        run: The run whose totals are shown.
    """

    num_classes: int = 10
    image_size: int = 32
    batch_size: int = 64
    steps: int = 40
    warmup: int = 2
    threads: int = 1
    is_pinned: bool = False
    with_memory: bool = True
    run: RunSize = field(default_factory=RunSize)

    def __post_init__(self) -> None:
        """Refuse values that nothing can be measured with.

        Raises:
            ConfigError: Names the option, what was found and what is expected.
        """
        check_network(BASE, EDGE_NETWORKS, self.num_classes)
        check_image_size(self.image_size)
        # Batch normalisation needs two samples for a variance worth its name.
        for name, low in (("batch_size", 2), ("steps", 1), ("warmup", 0), ("threads", 1)):
            value = getattr(self, name)
            if value < low:
                raise ConfigError(f"{name.replace('_', ' ')} is {value}, expected at least {low}")


def compare_networks(
    options: CompareOptions, on_phase: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Count, time and weigh the networks of the paper.

    Args:
        options: What to compare.
        on_phase: Told what happens now, for a progress display.

    Returns:
        The document; profiling/README.md describes every key.

    Raises:
        RunFailedError: A measuring process died.
    """
    from profiling.counted.network_cost import NETWORK_NAMES, count_network  # noqa: PLC0415 - imports torch

    on_phase("counting parameters and MACs")
    costs = {
        name: count_network(name, num_classes=options.num_classes, image_size=options.image_size)
        for name in NETWORK_NAMES
    }
    with tempfile.TemporaryDirectory() as folder:
        on_phase("exporting each network for ONNX Runtime")
        bundles = export_compared(
            TRAINABLE,
            Path(folder),
            num_classes=options.num_classes,
            image_size=options.image_size,
            temperature=_temperature(),
        )
        memory = _peak_memory(options, bundles, on_phase) if options.with_memory else {}
        with pinned(options.threads if options.is_pinned else 10**6) as cores:
            times = _time_steps(options, bundles, on_phase)
    return {
        "schema": SCHEMA,
        "networks": [_network_entry(cost, times, memory) for cost in costs.values()],
        "ratios": ratios(list(costs.values()), times),
        "run": run_totals(options.run, costs, num_classes=options.num_classes, image_size=options.image_size),
        "noise": noise_report({f"{name} on {engine}": time for (name, engine), time in times.items()}),
        "not_measured": [
            *NOT_MEASURED,
            *([] if options.with_memory else ["peak memory (--no-memory)"]),
            *([] if options.is_pinned else ["on pinned cores (give --pin)"]),
        ],
        "settings": _settings(options, cores if options.is_pinned else None),
        "machine": describe_machine(),
    }


def network_step(name: str, batch: TrainingBatch) -> Callable[[], object]:
    """A training step of any compared network in PyTorch."""
    from gkt_core.nn import build_edge_network  # noqa: PLC0415 - imports torch
    from profiling.counted.network_cost import build_trainable  # noqa: PLC0415
    from profiling.device.training_steps import pytorch_step, split_learning_step  # noqa: PLC0415

    num_classes = batch.server_logits.shape[1]
    if name == _EXTRACTOR:
        return split_learning_step(build_edge_network(BASE, num_classes).extractor, batch)
    return pytorch_step(build_trainable(name, num_classes), batch)


def _time_steps(
    options: CompareOptions, bundles: Mapping[str, Path], on_phase: Callable[[str], None]
) -> dict[tuple[str, str], StepTime]:
    """Time one training step of each network and engine in :data:`TIMED`, interleaved in one run."""
    from gkt_core.nn.execution import torch_threads  # noqa: PLC0415 - imports torch
    from profiling.device.training_steps import (  # noqa: PLC0415
        ALPHA,
        TrainingBatch,
        engine_step,
    )

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
                alpha=ALPHA if name in EDGE_NETWORKS else 0.0,
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
            on_turn=lambda turn: on_phase(f"timing {len(TIMED)} training steps in turn: {turn} of {turns}"),
        )


def _peak_memory(
    options: CompareOptions, bundles: Mapping[str, Path], on_phase: Callable[[str], None]
) -> dict[tuple[str, str], int]:
    found = {}
    for name, engine in TIMED:
        on_phase(f"memory of {name} on {engine}, in a fresh process")
        if engine != PYTORCH:
            found[name, engine] = engine_peak_bytes(
                bundles[name], engine=engine, batch_size=options.batch_size, threads=options.threads
            )
        else:
            found[name, engine] = pytorch_peak_bytes(
                name,
                batch_size=options.batch_size,
                image_size=options.image_size,
                num_classes=options.num_classes,
                threads=options.threads,
            )
    return found


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


def _temperature() -> float:
    from profiling.device.training_steps import TEMPERATURE  # noqa: PLC0415 - imports torch

    return TEMPERATURE


def _settings(options: CompareOptions, cores: list[int] | None) -> dict[str, Any]:
    from profiling.device.training_steps import ALPHA, LEARNING_RATE, TEMPERATURE  # noqa: PLC0415 - imports torch

    own = {name: value for name, value in dataclasses.asdict(options).items() if name != "run"}
    return {
        **own,
        "pinned_cores": cores,
        "step": "forward, loss, backward, Adam; wall-clock time on the CPU, float32, interleaved round-robin",
        "turn": f"short steps several times, to about {_FILL_MS:.0f} ms",
        "edge_loss": "cross entropy + alpha x T^2 x KL(server || device)",
        "full_loss": "cross entropy (on ort_training with alpha = 0 in the same graph)",
        "alpha": ALPHA,
        "temperature": TEMPERATURE,
        "learning_rate": LEARNING_RATE,
        "units": "MACs and FLOPs are for one sample, times for one batch; FLOPs = 2 x MACs",
    }
