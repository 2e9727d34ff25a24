"""What a device prints into a log: phases, what it waits for, and lines that are not folded."""

from __future__ import annotations

import json

import pytest

from edge_runtime import progress
from edge_runtime.progress import DeviceProgress


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where output goes to a file."""
    monkeypatch.delenv("COLUMNS", raising=False)


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines without their times."""
    return [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]


def test_a_waiting_device_says_so_and_for_what(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with DeviceProgress("door", "plain") as shown:
        shown.phase("wait", 0, 0, "1 of 3 devices have joined")
        shown.phase("wait", 0, 0, "1 of 3 devices have joined")
        # Nobody reads a line a second.
        shown.phase("wait", 0, 0, "2 of 3 devices have joined")
        monkeypatch.setattr(progress, "_SECONDS_BETWEEN_WAITS", 0.0)
        shown.phase("wait", 0, 0, "2 of 3 devices have joined")
        shown.phase("train", 1, 64)
    assert said(capsys) == [
        "door waits: 1 of 3 devices have joined",
        "door waits: 2 of 3 devices have joined",
        "door trains, round 1",
    ]


def test_a_line_in_a_log_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = "https://server/v1/runs: " + "a reason that is long, " * 30 + "and ends"
    with DeviceProgress("door", "plain") as shown:
        shown.note(line)
        shown.phase("wait", 2, 0, line)
    assert said(capsys) == [line, f"door waits, round 2: {line}"]


def test_brackets_of_a_reason_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with DeviceProgress("door", "plain") as shown:
        shown.phase("wait", 2, 0, "the server trains [/bold] on round 2")
    assert said(capsys) == ["door waits, round 2: the server trains [/bold] on round 2"]


def test_programs_read_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with DeviceProgress("door", "json") as shown:
        shown.phase("train", 1, 64)
        shown.phase("wait", 1, 0, "1 of 3 devices have reported")
    train, wait = map(json.loads, capsys.readouterr().err.splitlines())
    assert "reason" not in train
    assert (wait["event"], wait["phase"], wait["reason"]) == ("phase", "wait", "1 of 3 devices have reported")
