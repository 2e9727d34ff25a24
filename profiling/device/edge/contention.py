"""What devices that share one machine cost each other: the same training, alone and several at once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# Processes begin and end at slightly different times: only the middle of each is taken.
_EDGE_SHARE = 0.25

Windows = Sequence[Mapping[str, Any]]


def measure_contention(train: Callable[[float], Windows], processes: int, seconds: float) -> dict[str, Any]:
    """Train in one process, then in several at once, each without a pause.

    Args:
        train: Trains for so many seconds in a fresh process; the samples over time.
        processes: At once.
        seconds: How long each trains.

    Returns:
        ``processes``, ``seconds``, ``alone_ms``, ``together_ms`` (medians of one step) and ``factor``, the
        second over the first: 1 where the processes do not notice each other.
    """
    alone = _middle(train(seconds))
    with ThreadPoolExecutor(processes) as pool:
        runs = list(pool.map(train, [seconds] * processes))
    together = statistics.median(value for windows in runs for value in _samples(windows))
    return {
        "processes": processes,
        "seconds": seconds,
        "alone_ms": round(alone, 4),
        "together_ms": round(together, 4),
        "factor": round(together / alone, 4),
    }


def _middle(windows: Windows) -> float:
    return statistics.median(_samples(windows))


def _samples(windows: Windows) -> list[float]:
    skipped = int(len(windows) * _EDGE_SHARE)
    return [value for window in windows[skipped : len(windows) - skipped] for value in window["samples_ms"]]
