"""Interleaved timing: every candidate takes one step in turn, so that a machine's drift hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class StepTime:
    """Wall-clock time of one step.

    Attributes:
        median_ms: Median in milliseconds.
        p90_ms: 90th percentile in milliseconds, interpolated linearly between steps.
        n: Steps measured, without the warm-up.
    """

    median_ms: float
    p90_ms: float
    n: int


def time_interleaved(
    steps: Mapping[_Key, Callable[[], object]],
    *,
    num_steps: int,
    num_warmup: int,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[_Key, StepTime]:
    """Time several steps round-robin in one run: A B C, A B C, ...

    Args:
        steps: What to call, by name, in this order.
        num_steps: Measured calls of each, at least 1.
        num_warmup: Calls of each before measuring.
        clock: Nanoseconds since any fixed moment.

    Returns:
        One :class:`StepTime` for each name.
    """
    samples: dict[_Key, list[float]] = {key: [] for key in steps}
    for turn in range(num_warmup + num_steps):
        for key, step in steps.items():
            start = clock()
            step()
            elapsed_ms = (clock() - start) / 1e6
            if turn >= num_warmup:
                samples[key].append(elapsed_ms)
    return {key: summarise(values) for key, values in samples.items()}


def summarise(samples_ms: list[float]) -> StepTime:
    """Median, 90th percentile and number of samples in milliseconds."""
    return StepTime(
        median_ms=float(np.median(samples_ms)),
        p90_ms=float(np.percentile(samples_ms, 90)),
        n=len(samples_ms),
    )
