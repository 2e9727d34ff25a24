"""Processes that a measurement starts: what they say when they end, and that none is left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gkt_core.errors import GKTError, InputError, RunFailedError
from profiling.frame.processes import Child, ProcessGroup, free_port, processes_of, wait_for_server, waiting


def _child(tmp_path: Path, code: str) -> Child:
    """A program of a few lines, as if it were a module of the product."""
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    environment = {"PYTHONPATH": str(tmp_path)}
    return Child("a program", ["first"], log=tmp_path / "log", environment=environment, module="program")


def test_a_command_that_ends_by_itself_is_a_defect(tmp_path: Path) -> None:
    arguments = ["serve", "--data-dir", str(tmp_path / "none")]
    refusal = r"a server ended by itself with exit code 2 .*holds no run"
    with pytest.raises(RunFailedError, match=refusal), ProcessGroup(tmp_path) as processes:
        refused = processes.start("a server", arguments, log=tmp_path / "log")
        refused.process.wait(timeout=300)
        with pytest.raises(InputError, match="holds no run"):
            wait_for_server(refused, tmp_path / "none")
        refused.check()


@pytest.mark.parametrize(("code", "kind"), [(2, InputError), (7, RunFailedError)])
def test_what_it_said_last_is_its_error(code: int, kind: type[GKTError], tmp_path: Path) -> None:
    says = f"print('error: it broke'); print('more'); raise SystemExit({code})"
    with pytest.raises(kind, match="it broke"), ProcessGroup() as processes:
        child = _child(tmp_path, says)
        processes.wait([child])


def test_words_of_an_earlier_start_are_not_those_of_this_one(tmp_path: Path) -> None:
    child = _child(tmp_path, "import sys; print('error: the first'); sys.exit(1)")
    child.process.wait(timeout=300)
    (tmp_path / "program.py").write_text("import sys; sys.exit(1)", encoding="utf-8")
    child.start()
    child.process.wait(timeout=300)
    assert child.num_starts == 2
    assert "a program ended with exit code 1" in str(child.failure())
    assert (tmp_path / "log").read_text() == "error: the first\n"


def test_what_does_not_end_when_asked_is_killed_with_what_it_started(tmp_path: Path) -> None:
    child = _child(
        tmp_path,
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "other = [sys.executable, '-S', '-c', 'import time; time.sleep(600)', sys.argv[0] + '/other']\n"
        "subprocess.Popen(other)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n",
    )
    waiting.wait_until(lambda: "ready" in child.log.read_text(), 300, lambda: "it never began")
    assert len(processes_of(tmp_path)) == 1
    child.stop(grace_seconds=0.1)
    assert child.exit_code == -9
    waiting.wait_until(lambda: not processes_of(tmp_path), 300, lambda: "its own process is left")


def test_a_process_that_was_left_behind_is_told_and_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiling.frame.processes.group._LEFT_SECONDS", 0.1)
    sleeping = [sys.executable, "-S", "-c", "import time; time.sleep(600)", str(tmp_path / "server")]
    process = subprocess.Popen(sleeping)
    told = rf"left behind: .*{process.pid}: "
    with pytest.raises(RunFailedError, match=told), ProcessGroup(tmp_path):
        pass
    assert process.wait(timeout=60) == -9
    assert processes_of(tmp_path) == {}


def test_a_server_that_hangs_is_not_waited_for_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_START_SECONDS", 0.1)
    child = _child(tmp_path, "import time; time.sleep(600)")
    try:
        with pytest.raises(RunFailedError, match="a program did not start"):
            wait_for_server(child, tmp_path)
    finally:
        child.kill_all()
    assert child.exit_code == -9


def test_a_port_that_no_outgoing_connection_is_given() -> None:
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as stream:
        first = int(stream.read().split()[0])
    assert free_port() < first
