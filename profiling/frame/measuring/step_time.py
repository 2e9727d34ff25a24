"""Timing: candidates take one step in turn, and what is said about the samples is robust to outliers."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

_Key = TypeVar("_Key", bound=Hashable)
# A median whose middle half spans more than this, or that moves more than this from the first half of the
# run to the second, is not worth quoting.
NOISY_SPREAD = 0.15
NOISY_DRIFT = 0.05
_MOST_REPEATS = 8
_MANY_SAMPLES = 1000


@dataclass(frozen=True, slots=True)
class StepTime:
    """Wall-clock time of one step.

    Attributes:
        n: Steps measured, without the warm-up.
        median_ms: Median in milliseconds.
        p90_ms: 90th percentile in milliseconds, interpolated linearly between steps.
        p95_ms: 95th percentile in milliseconds.
        iqr_ms: Interquartile range in milliseconds.
        low_ms: Lower end of a confidence interval of the median, 95 % where n allows it.
        high_ms: Its upper end.
        drift: Median of the second half over that of the first, minus 1.
    """

    n: int
    median_ms: float
    p90_ms: float
    p95_ms: float
    iqr_ms: float
    low_ms: float
    high_ms: float
    drift: float

    def to_dict(self) -> dict[str, Any]:
        """Round for a document: microseconds are beyond what a clock means here."""
        return {name: round(value, 4) for name, value in dataclasses.asdict(self).items()}


def time_interleaved(
    steps: Mapping[_Key, Callable[[], object]],
    *,
    num_steps: int,
    num_warmup: int,
    repeats: int = 1,
    fill_ms: float = 0.0,
    num_settling: int = 0,
    clock: Callable[[], int] = time.perf_counter_ns,
    on_turn: Callable[[int], None] = lambda turn: None,
) -> dict[_Key, StepTime]:
    """Time several steps round-robin in one run: A B C, A B C, ...

    What else a machine does comes in bursts that a short step meets whole or not at all: its median needs
    more samples to be as sure as that of a long one.

    Args:
        steps: What to call, by name, in this order.
        num_steps: Measured turns, at least 1.
        num_warmup: Calls of each before measuring.
        repeats: Measured calls of each in a turn.
        fill_ms: Once warm, as many calls in a turn as take about this time, instead; 0 for ``repeats``.
        num_settling: Calls in each turn before those that are measured.
        clock: Nanoseconds since any fixed moment.
        on_turn: Told how many turns are done, the warm-up included.

    Returns:
        One :class:`StepTime` for each name.
    """
    samples: dict[_Key, list[float]] = {key: [] for key in steps}
    rows = dict.fromkeys(steps, repeats)
    for turn in range(num_warmup + num_steps):
        for key, step in steps.items():
            for _ in range(num_settling):
                step()
            for _ in range(rows[key]):
                start = clock()
                step()
                samples[key].append((clock() - start) / 1e6)
        if turn + 1 == num_warmup:
            if fill_ms:
                rows = {key: _repeats(fill_ms, taken[-1]) for key, taken in samples.items()}
            samples = {key: [] for key in steps}
        on_turn(turn + 1)
    return {key: summarise(values) for key, values in samples.items()}


def _repeats(fill_ms: float, step_ms: float) -> int:
    return max(1, min(_MOST_REPEATS, round(fill_ms / max(step_ms, 1e-6))))


def summarise(samples_ms: Sequence[float]) -> StepTime:
    """Summarise samples in milliseconds, in the order they were taken; at least one."""
    values = np.asarray(samples_ms, dtype=np.float64)
    quarter, median, three_quarters, p90, p95 = np.percentile(values, (25, 50, 75, 90, 95))
    low, high = _median_interval(np.sort(values))
    half = len(values) // 2
    drift = float(np.median(values[half:]) / np.median(values[:half])) - 1 if half else 0.0
    return StepTime(
        n=len(values),
        median_ms=float(median),
        p90_ms=float(p90),
        p95_ms=float(p95),
        iqr_ms=float(three_quarters - quarter),
        low_ms=low,
        high_ms=high,
        drift=drift,
    )


def spread_of(values: Sequence[float]) -> dict[str, float]:
    """Describe what a quantity was in each turn: ``median``, ``lowest``, ``highest`` and how many, ``n``."""
    return {
        "median": float(np.median(values)),
        "lowest": min(values),
        "highest": max(values),
        "n": len(values),
    }


def _median_interval(ordered: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """Order statistics around the median, whatever the distribution.

    The number of samples below the true median is binomial(n, 1/2); the interval leaves out at most 2.5 %
    on either side. Below six samples no such interval exists, and the extremes are given.
    """
    n = len(ordered)
    if n > _MANY_SAMPLES:
        # The normal distribution is as good, and needs no numbers of thousands of digits.
        first = int(n / 2 - 0.98 * math.sqrt(n))
    else:
        rank, below = 0, 0.5**n
        while below <= 0.025 and rank < n // 2:
            rank += 1
            below += math.comb(n, rank) * 0.5**n
        first = max(0, rank - 1)
    return float(ordered[first]), float(ordered[n - 1 - first])


# Of a time in a table.
TIME_COLUMNS = {
    "median ms": "{entry:median}",
    "p90 ms": "{p90_ms:,.1f}",
    "IQR ms": "{iqr_ms:,.1f}",
    "n": "{n}",
}


def is_noisy(time: Mapping[str, float]) -> bool:
    """Say whether a time of a document moved too much for its median to be quoted."""
    return time["iqr_ms"] > NOISY_SPREAD * time["median_ms"] or abs(time.get("drift", 0.0)) > NOISY_DRIFT


def noise_note(noise: Mapping[str, Any], num_shown: int = 3) -> str:
    """The verdict of the self-check for a person.

    Args:
        noise: What :func:`noise_report` returned.
        num_shown: Reasons to write out.
    """
    if not noise["too_noisy_to_quote"]:
        return "The self-check found spread and drift small enough to quote these medians."
    reasons = noise["reasons"]
    rest = len(reasons) - num_shown
    more = f"; and {rest} more of the kind" if rest > 0 else ""
    return f"TOO NOISY TO QUOTE: {'; '.join(reasons[:num_shown])}{more}."


def noise_report(times: Mapping[str, StepTime]) -> dict[str, Any]:
    """The self-check of a run: whether its medians are worth quoting, and if not, why.

    Returns:
        ``too_noisy_to_quote``, and ``reasons``: a sentence for each time that moved too much.
    """
    reasons = []
    for name, measured in times.items():
        if measured.iqr_ms > NOISY_SPREAD * measured.median_ms:
            reasons.append(
                f"{name}: the middle half of the samples spans {measured.iqr_ms / measured.median_ms:.0%} of "
                f"the median (limit {NOISY_SPREAD:.0%})"
            )
        if abs(measured.drift) > NOISY_DRIFT:
            reasons.append(
                f"{name}: the second half of the run took {1 + measured.drift:.2f} times the first "
                f"(limit {1 - NOISY_DRIFT:.2f} to {1 + NOISY_DRIFT:.2f})"
            )
    return {"too_noisy_to_quote": bool(reasons), "reasons": reasons}
