"""A measurement in a fresh process: its answer, its words, its end."""

from __future__ import annotations

from typing import Any

import pytest

from gkt_core.errors import InputError, RunFailedError
from profiling.frame.measuring.fresh_process import measure_fresh
from tests.conftest import ROOT


def fresh(act: str, **settings: Any) -> Any:
    environment = {"PYTHONPATH": str(ROOT), "GKT_FRESH": "set"}
    return measure_fresh(
        "tests.profiling.frame.fresh", {"act": act}, what="the process", environment=environment, **settings
    )


def test_it_answers_and_is_heard_meanwhile() -> None:
    lines: list[str] = []
    assert fresh("answer", announce=lines.append) == {"spec": {"act": "answer"}, "variable": "set"}
    assert lines == ["a first line"]


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        ("refuse", InputError, "^nothing of the kind$"),
        ("fail", RunFailedError, "^the process ended with exit code 7: it broke$"),
        ("die", RunFailedError, "^the process ended with exit code -6: a first line.*: more memory$"),
    ],
)
def test_it_fails_with_its_own_words(act: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fresh(act, advice="more memory")


def test_it_does_not_hang() -> None:
    with pytest.raises(RunFailedError, match="ended with exit code -9"):
        fresh("hang", timeout_seconds=3.0)


def test_whoever_stops_listening_stops_it() -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fresh("hang", announce=interrupt)
