"""Threads and the clock, each really wrong."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gkt_core.doctor import machine
from gkt_core.doctor.findings import ADVICE, FINE, WRONG
from gkt_core.doctor.machine import clock, container_cpus, judged_end, judged_threads, threads
from tests.gkt_core.doctor.looking import looked, states, the_one

FOREVER = float("inf")


@pytest.mark.parametrize(
    ("environment", "cpus", "state", "words"),
    [
        ({"OMP_NUM_THREADS": "many"}, FOREVER, WRONG, "expected a number of threads"),
        ({"OMP_NUM_THREADS": "0"}, FOREVER, WRONG, "expected a number of threads"),
        ({"OMP_NUM_THREADS": "8,2"}, FOREVER, ADVICE, "is 8, there are 4 cores"),
        ({}, 1.5, ADVICE, "may use 1.5 CPUs up and sees 4"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, FOREVER, ADVICE, "OMP_WAIT_POLICY is ACTIVE: threads spin"),
        ({"GOMP_SPINCOUNT": "infinity"}, FOREVER, ADVICE, "GOMP_SPINCOUNT is infinity: threads spin"),
        ({"KMP_BLOCKTIME": "200"}, FOREVER, ADVICE, "KMP_BLOCKTIME is 200: threads spin"),
    ],
)
def test_threads_that_wait_for_each_other(
    environment: dict[str, str], cpus: float, state: str, words: str
) -> None:
    assert words in the_one(judged_threads(environment, 4, cpus), state).text


@pytest.mark.parametrize("environment", [{}, {"OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "passive"}])
def test_threads_that_are_fine(environment: dict[str, str]) -> None:
    assert states(judged_threads(environment, 4, 4.0)) == [FINE]


def test_the_environment_is_what_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "none")
    assert WRONG in states(looked(threads))


def test_what_a_container_may_use_up(tmp_path: Path) -> None:
    limit = tmp_path / "cpu.max"
    assert container_cpus(limit) == FOREVER
    limit.write_text("max 100000\n")
    assert container_cpus(limit) == FOREVER
    limit.write_text("150000 100000\n")
    assert container_cpus(limit) == 1.5


def test_a_clock_that_is_right(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert states(looked(clock, data_dir=tmp_path, state_dir=tmp_path / "none-yet")) == [FINE]


def test_files_from_later_than_now(tmp_path: Path) -> None:
    (tmp_path / "state.json").touch()
    os.utime(tmp_path / "state.json", (time.time() + 86400,) * 2)
    said = the_one(looked(clock, state_dir=tmp_path), WRONG)
    assert said.text.startswith(f"state.json in {tmp_path} is of ") and "lags behind" in said.text


def test_a_clock_from_before_gkt_was_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a board without a battery."""
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    assert "the clock says 1970-01-1" in the_one(looked(clock), WRONG).text


def test_a_disk_of_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network's disk has its own clock: here it is this one that is an hour ahead."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    assert f"the disk of {tmp_path} says" in the_one(looked(clock, data_dir=tmp_path), WRONG).text


@pytest.mark.parametrize(("days", "state"), [(-1, WRONG), (3, ADVICE), (200, FINE)])
def test_the_end_of_a_certificate(days: int, state: str) -> None:
    assert judged_end(days * 86400.0, "it", "renew it").state == state


def test_names_are_those_of_the_module() -> None:
    assert machine.num_cores() >= 1
