"""Memory of other processes over time: what lies in memory, and their own share of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class MemorySample:
    """One look at one process.

    Attributes:
        seconds: Since the sampler began.
        process: ``web`` or ``trainer``.
        pid: Its id: a process that was started again begins anew.
        rss_bytes: What of it lies in memory.
        pss_bytes: The same, with pages that other processes have too divided among them.
        num_threads: Its threads.
        num_fds: Its open files and sockets.
    """

    seconds: float
    process: str
    pid: int
    rss_bytes: int
    pss_bytes: int
    num_threads: int
    num_fds: int


class MemorySampler:
    """Looks at processes again and again, in a thread of its own.

    Args:
        find: The processes by name, looked up each time.
        interval_seconds: Between two looks.
    """

    def __init__(
        self, find: Callable[[], dict[str, psutil.Process | None]], interval_seconds: float = 0.5
    ) -> None:
        self._find, self._interval_seconds = find, interval_seconds
        self.samples: list[MemorySample] = []
        self._started = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> MemorySampler:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._stopping.set()
        self._thread.join()

    def now(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_seconds):
            for name, process in self._find().items():
                if process is None:
                    continue
                # Before: a process that ends while it is looked at was there when that began.
                began = self.now()
                try:
                    memory = process.memory_full_info()
                    sample = MemorySample(
                        began,
                        name,
                        process.pid,
                        memory.rss,
                        memory.pss,
                        process.num_threads(),
                        process.num_fds(),
                    )
                except psutil.Error:
                    # It has just ended.
                    continue
                self.samples.append(sample)


def between(samples: Sequence[MemorySample], process: str, begin: float, end: float) -> list[MemorySample]:
    """Looks at one process within some seconds."""
    return [sample for sample in samples if sample.process == process and begin <= sample.seconds < end]


def growth_per_round(values: Sequence[float]) -> float:
    """Slope of the least-squares line through one value a round; 0 for fewer than two.

    Args:
        values: Such as the bytes at the end of each round.
    """
    count = len(values)
    if count < 2:
        return 0.0
    middle, mean = (count - 1) / 2, sum(values) / count
    above = sum((index - middle) * (value - mean) for index, value in enumerate(values))
    return above / sum((index - middle) ** 2 for index in range(count))
