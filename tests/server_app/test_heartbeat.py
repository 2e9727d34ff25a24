"""Signs of life, and how long a watcher waits for the next one; time is told, and never waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server_app import heartbeat
from server_app.heartbeat import ALIVE_NAME, START_SECONDS, WAITING_NAME, Heartbeat, Watchdog, read_beat


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    monotonic = __call__

    def pass_seconds(self, seconds: float, *dogs: Watchdog) -> None:
        """Let them pass in steps, in which watchdogs look, as a watching process does."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            for dog in dogs:
                dog.look()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heartbeat, "time", clock)
    return clock


def test_a_trainer_may_be_silent_for_as_long_as_what_it_does_may_take(tmp_path: Path, clock: Clock) -> None:
    beat, dog = Heartbeat(tmp_path, 7, 100.0), Watchdog(tmp_path, os.getpid(), clock)
    assert not dog.has_begun
    beat.long_step("looking at the uploads of round 1")
    clock.pass_seconds(1000.0, dog)
    assert dog.look() == "" and dog.has_begun
    clock.pass_seconds(2.0, dog)
    assert dog.look() == "silent for 1001 s while looking at the uploads of round 1, 1000 s are allowed"
    # Any sign is enough.
    beat.batch("round 1, epoch 1")
    assert dog.look() == ""
    clock.pass_seconds(101.0, dog)
    assert "while round 1, epoch 1, 100 s are allowed" in dog.look()


def test_a_batch_may_take_many_times_as_long_as_the_slowest(tmp_path: Path, clock: Clock) -> None:
    beat, dog = Heartbeat(tmp_path, 7, 10.0), Watchdog(tmp_path, os.getpid(), clock)
    for seconds in (1.0, 30.0, 2.0):
        beat.batch("round 1, epoch 1")
        clock.pass_seconds(seconds, dog)
    beat.batch("round 1, epoch 1")
    assert dog.look() == ""
    clock.pass_seconds(600.0, dog)
    assert dog.look() == ""
    clock.pass_seconds(2.0, dog)
    assert "600 s are allowed" in dog.look()
    # What comes between two rounds is no batch, however long it took.
    beat.long_step("round 2")
    clock.pass_seconds(90.0, dog)
    for _ in range(2):
        beat.batch("round 2, epoch 1")
        clock.pass_seconds(1.0, dog)
    last = read_beat(tmp_path / ALIVE_NAME)
    assert last is not None and last.allowed_seconds == 600.0


def test_a_process_that_never_begins_hangs_too(tmp_path: Path, clock: Clock) -> None:
    Heartbeat(tmp_path).waits("another process's sign, of before")
    dog = Watchdog(tmp_path, -5, clock)
    clock.pass_seconds(START_SECONDS, dog)
    assert dog.look() == ""
    clock.pass_seconds(2.0, dog)
    assert "while starting" in dog.look()


def test_a_watcher_that_was_stopped_itself_gives_the_trainer_its_time(tmp_path: Path, clock: Clock) -> None:
    beat, dog = Heartbeat(tmp_path, 7, 70.0), Watchdog(tmp_path, os.getpid(), clock)
    beat.waits("waiting")
    assert dog.look() == ""
    clock.now += 3600.0
    assert dog.look() == ""
    clock.pass_seconds(71.0, dog)
    assert "silent for 71 s" in dog.look()


def test_a_trainer_that_waits_for_another_is_alive(tmp_path: Path, clock: Clock) -> None:
    Heartbeat(tmp_path, 7, 60.0, WAITING_NAME).waits("waiting for process 4711")
    dog = Watchdog(tmp_path, os.getpid(), clock)
    clock.pass_seconds(59.0, dog)
    assert dog.look() == "" and dog.has_begun
