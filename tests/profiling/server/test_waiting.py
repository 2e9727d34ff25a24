"""``gkt profile waiting``: what devices that wait cost, and how soon they hear of their turn."""

from __future__ import annotations

import pytest

from profiling.server.waiting.measure import measure_waiting
from profiling.server.waiting.options import WaitingOptions
from profiling.server.waiting.report import Waiting


@pytest.mark.system
def test_devices_wait_and_all_have_their_turn() -> None:
    """A few; the command has 200."""
    lines: list[str] = []
    document = measure_waiting(WaitingOptions(num_devices=4, seconds=1.0, num_pages=2), lines.append)
    assert document["device_share"] >= 0 and document["server_share"] >= 0
    assert 0 < document["heard_seconds"]["median"] <= document["heard_seconds"]["last"]
    # Each asked once and was kept, however long this machine took.
    assert document["num_requests"] >= 3
    # Two pages, a terminal and Prometheus looked at least once.
    assert document["num_looks"] >= 4 and document["watched_share"] > -1
    assert 0 < document["answer_seconds"]["median"] <= document["answer_seconds"]["p95"]
    assert any("4 devices wait" in line for line in lines)


def test_what_is_too_dear_or_too_late_is_a_failure() -> None:
    good = {
        "server_share": 0.02,
        "device_share": 0.002,
        "watched_share": 0.02,
        "answer_seconds": {"median": 0.003, "p95": 0.1},
        "heard_seconds": {"median": 0.5, "last": 2.0},
    }
    assert Waiting().failures(good) == []
    dear = {**good, "server_share": 0.1, "device_share": 0.03, "watched_share": 0.05}
    dear |= {"answer_seconds": {"median": 0.004, "p95": 0.004}, "heard_seconds": {"median": 1.0, "last": 9.0}}
    assert Waiting().failures(dear) == [
        "the server takes 10.00% of a core, more than 2%",
        "a device takes 3.00% of a core, more than 0.2%",
        "to be watched takes 5.00% of a core, more than 2%",
        "a small request takes 4.0 ms, not 3 ms",
        "the last device heard of its turn after 9.0 s, not 2 s",
    ]
