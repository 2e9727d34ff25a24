"""A step of a server's graph that never ends: nothing in a process can stop it, so the process ends."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from gkt_core.errors import UnsafeModelError

# Ten minutes are more than any step of a network that suits a device; swapping, it may be slow now and then.
LEAST_SECONDS, SLOWEST_FACTOR = 600.0, 100.0
_LOOK_SECONDS = 5.0


class EndlessWatch:
    """Looks, in a thread of its own, whether a step of a graph takes out of all proportion long.

    The thread is awake while there are steps: between rounds it costs nothing.

    Args:
        end: Called in that thread with the error of a step that does not end; by default it is printed and
            the process ends with its exit code, as a kill would end it: the state folder goes on.
        least_seconds: How long any step may take.
        look_seconds: Between two looks.
    """

    def __init__(
        self,
        end: Callable[[UnsafeModelError], None] | None = None,
        *,
        least_seconds: float = LEAST_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._end = end or _end_process
        self._least_seconds, self._look_seconds = least_seconds, look_seconds
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._num_steps, self._is_busy, self._slowest = 0, False, 0.0

    @property
    def allowed_seconds(self) -> float:
        """How long a step may take now."""
        return max(self._least_seconds, SLOWEST_FACTOR * self._slowest)

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Watch the block, which is one step: of training, of extraction, or of the trained model."""
        began = time.monotonic()
        self._num_steps += 1
        self._is_busy = True
        if not self._wanted.is_set():
            self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="endless", daemon=True)
            self._thread.start()
        try:
            yield
        finally:
            self._is_busy = False
            self._slowest = max(self._slowest, time.monotonic() - began)

    def _watch(self) -> None:
        seen, seconds, looked_at = 0, 0.0, time.monotonic()
        while True:
            time.sleep(self._look_seconds)
            now = time.monotonic()
            # A process that was stopped, or starved, did not step meanwhile either.
            passed, looked_at = min(now - looked_at, 2 * self._look_seconds), now
            is_same = seen == self._num_steps
            seen, seconds = self._num_steps, seconds + passed if is_same else 0.0
            if self._is_busy:
                if is_same and seconds > self.allowed_seconds:
                    self._end(_endless(seconds, self._slowest))
                    return
            elif is_same:
                self._wanted.clear()
                # One that has begun in between sees that nobody looks, or is seen here.
                if seen == self._num_steps:
                    self._wanted.wait()
                looked_at = time.monotonic()


def _endless(seconds: float, slowest: float) -> UnsafeModelError:
    before = f"the slowest before took {slowest:.1f} s" if slowest else "it was the first"
    return UnsafeModelError(
        f"a step of this bundle's graph has not ended after {seconds:.0f} s, {before}: whoever runs the "
        "server must export again, or somebody between has changed it; if this machine was only busy, the "
        "same command goes on from the state folder"
    )


def _end_process(error: UnsafeModelError) -> None:
    """End this process: what computes in it hears of no exception."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"error: {error}\n")
        sys.stderr.flush()
    os._exit(error.exit_code)
