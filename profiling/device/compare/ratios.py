"""The paper's claims about the cost on a device, and what was counted and timed beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiling.counted.network_cost import NetworkCost
    from profiling.frame.measuring.step_time import StepTime

BASE = "resnet8"
FASTEST = "fastest"
# Section 4.3 of the paper (CIFAR-100, batch 64, Intel i7). Its parameter ratios are 591K and 1.15M over 11K.
PAPER_STEP_MS = {"resnet8": 30.0, "resnet110": 950.0}
PAPER_STEP_SHARE = 0.03
PAPER_RATIOS: dict[str, dict[str, float]] = {
    "resnet56": {"num_parameters": 54.0, "forward_macs": 9.0, "fvcore_macs": 9.0, "train_flops": 9.0},
    "resnet110": {"num_parameters": 105.0, "forward_macs": 17.0, "fvcore_macs": 17.0, "train_flops": 17.0},
}


def ratios(costs: Sequence[NetworkCost], times: Mapping[tuple[str, str], StepTime]) -> dict[str, Any]:
    """Each full network over ResNet-8, beside what the paper says; ``paper`` is null where it is silent.

    Args:
        costs: Counts; must hold ResNet-8 and the full networks.
        times: By network and engine; may be empty.

    Returns:
        For each full network ``{quantity: {"value": ..., "paper": ...}}`` of all counts, and ``step_ms``
        by engine, both networks on the same one. Beside them ``resnet8_share_of_resnet110_step``, the
        paper's "only 3 %", by engine; ``fastest`` names each network's fastest engine.
    """
    by_name = {cost.name: cost for cost in costs}
    by_network: dict[str, Any] = {}
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
        by_network[name] = entry
    by_network["resnet8_share_of_resnet110_step"] = {
        engine: _beside(1 / factor, PAPER_STEP_SHARE)
        for engine, factor in _step_factors("resnet110", times).items()
    }
    return by_network


def _step_factors(name: str, times: Mapping[tuple[str, str], StepTime]) -> dict[str, float]:
    """Count how many steps of ResNet-8 fit into one of a full network, by the engine of both.

    Beside them ``fastest``: each network on whatever engine is fastest for it, as its owner would choose.
    """
    best = {
        each: min(time.median_ms for (network, _), time in times.items() if network == each)
        for each in {network for network, _ in times} & {name, BASE}
    }
    fastest = {FASTEST: best[name] / best[BASE]} if len(best) == 2 else {}  # both were timed
    return fastest | {
        engine: time.median_ms / times[BASE, engine].median_ms
        for (network, engine), time in times.items()
        if network == name and (BASE, engine) in times
    }


def _beside(value: float, paper: float | None) -> dict[str, float | None]:
    return {"value": round(value, 4), "paper": None if paper is None else round(paper, 4)}
