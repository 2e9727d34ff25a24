"""Wait for conditions, as long as the slowest machine needs, and let calls begin together."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tests.conftest import LONGEST_SECONDS

ValueT = TypeVar("ValueT")


def until(condition: Callable[[], ValueT], what: str, seconds: float = 0.02) -> ValueT:
    """Ask again and again until the answer is true, and return it.

    Args:
        condition: What is asked.
        what: Its name, for the message of a test that fails.
        seconds: Between two questions.
    """
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        threading.Event().wait(seconds)
    raise AssertionError(f"{what} did not happen in {LONGEST_SECONDS} s")


def at_once(*calls: Callable[[], ValueT]) -> list[ValueT]:
    """Run calls in a thread each, let them begin together, and return what they return."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], ValueT]) -> ValueT:
        barrier.wait(timeout=LONGEST_SECONDS)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))
