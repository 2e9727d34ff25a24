"""A step that never ends: the device does not wait for it for ever, and says what it was."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from edge_runtime.trust.endless import SLOWEST_FACTOR, EndlessWatch
from gkt_core.errors import UnsafeModelError
from tests.conftest import LONGEST_SECONDS
from tests.server_app.waiting import until

LOOK = 0.01


class Told:
    """Takes what would end the process."""

    def __init__(self) -> None:
        self.errors: list[UnsafeModelError] = []
        self.has_come = threading.Event()

    def __call__(self, error: UnsafeModelError) -> None:
        self.errors.append(error)
        self.has_come.set()


@pytest.fixture
def told() -> Iterator[Told]:
    yield Told()


def test_a_step_that_does_not_end_is_named(told: Told) -> None:
    watch = EndlessWatch(told, least_seconds=0.1, look_seconds=LOOK)
    with watch.step():
        assert told.has_come.wait(LONGEST_SECONDS)
    (error,) = told.errors
    assert "a step of this bundle's graph has not ended after" in str(error) and "it was the first" in str(
        error
    )


def test_many_short_steps_are_no_long_one_and_a_pause_is_none(told: Told) -> None:
    """Each is far below the limit, all together are far above it; looking ends with them."""
    watch = EndlessWatch(told, least_seconds=LONGEST_SECONDS, look_seconds=LOOK)
    for _ in range(3):
        for _ in range(50):
            with watch.step():
                threading.Event().wait(0.001)
        until(lambda: not watch._wanted.is_set(), "nobody looks")
        thread = watch._thread
    assert not told.errors and thread is not None and thread.is_alive()
    # It looks again with the next step, whatever was before.
    watch._least_seconds, watch._slowest = 0.1, 0.0
    with watch.step():
        assert told.has_come.wait(LONGEST_SECONDS)


def test_the_limit_follows_the_slowest_step(told: Told) -> None:
    watch = EndlessWatch(told, least_seconds=0.1, look_seconds=LOOK)
    assert watch.allowed_seconds == 0.1
    with watch.step():
        threading.Event().wait(0.02)
    assert watch.allowed_seconds >= SLOWEST_FACTOR * 0.02


def test_the_process_ends_with_an_error_and_its_exit_code() -> None:
    """What computes hears of no exception: here it is asleep in C, holding nothing."""
    program = (
        "import time\nfrom edge_runtime.trust.endless import EndlessWatch\n"
        "with EndlessWatch(least_seconds=0.1, look_seconds=0.01).step():\n    time.sleep(86400)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
    )
    assert ended.returncode == UnsafeModelError.exit_code
    assert ended.stderr.startswith("error: a step of this bundle's graph has not ended after")
    assert "goes on from the state folder" in ended.stderr and "Traceback" not in ended.stderr
