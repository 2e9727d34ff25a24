"""ResNet-8 beside ResNet-56 and ResNet-110: what one training step costs, as one report."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkt_core.config import check_image_size
from gkt_core.errors import ConfigError
from gkt_core.networks import EDGE_NETWORKS, FULL_NETWORKS, check_network
from profiling.machine import describe_machine

if TYPE_CHECKING:
    from profiling.network_cost import NetworkCost
    from profiling.step_time import StepTime

SCHEMA = "gkt-profile-compare/1"
ORT_TRAINING = "ort_training"
PYTORCH = "pytorch"
BASE = "resnet8"
# In this order in every round of the timing.
TIMED = ((BASE, ORT_TRAINING), (BASE, PYTORCH), ("resnet56", PYTORCH), ("resnet110", PYTORCH))

# Section 4.3 of the paper (CIFAR-100, batch 64, Intel i7). Its parameter ratios are 591K and 1.15M over 11K.
PAPER_STEP_MS = {"resnet8": 30.0, "resnet110": 950.0}
PAPER_STEP_SHARE = 0.03
PAPER_RATIOS: dict[str, dict[str, float]] = {
    "resnet56": {"num_parameters": 54.0, "forward_macs": 9.0, "fvcore_macs": 9.0, "train_flops": 9.0},
    "resnet110": {"num_parameters": 105.0, "forward_macs": 17.0, "fvcore_macs": 17.0, "train_flops": 17.0},
}
_ROLES = dict.fromkeys(EDGE_NETWORKS, "edge") | dict.fromkeys(FULL_NETWORKS, "full")
NOT_MEASURED = (
    "step time of resnet4, resnet6 and the extractor",
    "step time of the full networks on ort_training: a device of FedAvg would need its own artifacts",
    "PyTorch with channels_last, torch.compile or a tuned memory allocator, which can be faster",
    "loading and augmenting images, extracting features for the upload, the server's share, traffic",
    "memory and energy",
    "any machine but this one",
)


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What to compare, and how long.

    Attributes:
        num_classes: Width of the logits.
        image_size: Pixels; a multiple of 4.
        batch_size: Samples in a timed step.
        steps: Measured steps of each network and engine.
        warmup: Steps of each before measuring.
        threads: Threads of either engine.
    """

    num_classes: int = 10
    image_size: int = 32
    batch_size: int = 64
    steps: int = 10
    warmup: int = 2
    threads: int = 1

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
    options: CompareOptions, on_phase: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Count and time the networks of the paper.

    Args:
        options: What to compare.
        on_phase: Told what happens now, for a progress display.

    Returns:
        ``schema``, ``networks``, ``ratios``, ``not_measured``, ``settings`` and ``machine``, as JSON holds
        them; profiling/README.md describes every key.
    """
    from profiling.network_cost import NETWORK_NAMES, count_network  # noqa: PLC0415 - imports torch

    tell = on_phase or (lambda _: None)
    tell("counting parameters and MACs")
    costs = [
        count_network(name, num_classes=options.num_classes, image_size=options.image_size)
        for name in NETWORK_NAMES
    ]
    tell(f"timing {options.warmup + options.steps} rounds of {len(TIMED)} training steps")
    times = time_steps(options)
    return {
        "schema": SCHEMA,
        "networks": [_network_entry(cost, times) for cost in costs],
        "ratios": ratios(costs, times),
        "not_measured": list(NOT_MEASURED),
        "settings": _settings(options),
        "machine": describe_machine(),
    }


def time_steps(options: CompareOptions) -> dict[tuple[str, str], StepTime]:
    """Time one training step of each network and engine in :data:`TIMED`, interleaved in one run."""
    from profiling.network_cost import build_trainable  # noqa: PLC0415 - imports torch
    from profiling.step_time import time_interleaved  # noqa: PLC0415
    from profiling.training_steps import (  # noqa: PLC0415 - imports torch and onnx
        TrainingBatch,
        ort_training_step,
        pytorch_step,
        torch_threads,
    )

    batch = TrainingBatch.random(options.batch_size, options.image_size, options.num_classes)
    with tempfile.TemporaryDirectory() as folder, torch_threads(options.threads):
        steps = {
            (name, engine): ort_training_step(
                name, batch, num_threads=options.threads, folder=Path(folder, name)
            )
            if engine == ORT_TRAINING
            else pytorch_step(build_trainable(name, options.num_classes), batch)
            for name, engine in TIMED
        }
        return time_interleaved(steps, num_steps=options.steps, num_warmup=options.warmup)


def ratios(costs: Sequence[NetworkCost], times: Mapping[tuple[str, str], StepTime]) -> dict[str, Any]:
    """Each full network over ResNet-8, beside what the paper says; ``paper`` is null where it is silent.

    Args:
        costs: Counts; must hold ResNet-8 and the full networks.
        times: Medians by network and engine; may be empty.

    Returns:
        For each full network ``{quantity: {"value": ..., "paper": ...}}`` of all counts, and ``step_ms``
        by the engine that ResNet-8 ran on (the full network always on PyTorch). Beside them
        ``resnet8_share_of_resnet110_step``, the paper's "only 3 %", by engine.
    """
    by_name = {cost.name: cost for cost in costs}
    found: dict[str, Any] = {}
    for name, paper in PAPER_RATIOS.items():
        entry: dict[str, Any] = {
            quantity: _beside(getattr(by_name[name], quantity) / getattr(by_name[BASE], quantity), value)
            for quantity, value in paper.items()
        }
        entry["step_ms"] = {
            engine: _beside(
                factor, PAPER_STEP_MS[name] / PAPER_STEP_MS[BASE] if name in PAPER_STEP_MS else None
            )
            for engine, factor in _step_factors(name, times).items()
        }
        found[name] = entry
    found["resnet8_share_of_resnet110_step"] = {
        engine: _beside(1 / factor, PAPER_STEP_SHARE)
        for engine, factor in _step_factors("resnet110", times).items()
    }
    return found


def _step_factors(name: str, times: Mapping[tuple[str, str], StepTime]) -> dict[str, float]:
    """How many steps of ResNet-8 fit into one of a full network on PyTorch, by ResNet-8's engine."""
    if (name, PYTORCH) not in times:
        return {}
    full = times[name, PYTORCH].median_ms
    return {engine: full / time.median_ms for (network, engine), time in times.items() if network == BASE}


def _beside(value: float, paper: float | None) -> dict[str, float | None]:
    return {"value": round(value, 4), "paper": None if paper is None else round(paper, 4)}


def _network_entry(cost: NetworkCost, times: Mapping[tuple[str, str], StepTime]) -> dict[str, Any]:
    entry = dataclasses.asdict(cost)
    entry["role"] = _ROLES.get(cost.name, "split learning's device part")
    entry["step_ms"] = {
        engine: time.to_dict() for (network, engine), time in times.items() if network == cost.name
    }
    return entry


def _settings(options: CompareOptions) -> dict[str, Any]:
    from profiling.training_steps import ALPHA, LEARNING_RATE, TEMPERATURE  # noqa: PLC0415 - imports torch

    return {
        **dataclasses.asdict(options),
        "step": "forward, loss, backward, Adam; wall-clock time on the CPU, float32, interleaved round-robin",
        "edge_loss": "cross entropy + alpha x T^2 x KL(server || device)",
        "full_loss": "cross entropy",
        "alpha": ALPHA,
        "temperature": TEMPERATURE,
        "learning_rate": LEARNING_RATE,
        "units": "MACs and FLOPs are for one sample, times for one batch; FLOPs = 2 x MACs",
    }
