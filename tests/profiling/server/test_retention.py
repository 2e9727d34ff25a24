"""``gkt profile retention``: what a long run keeps."""

from __future__ import annotations

import pytest

from profiling.server.retention.measure import measure_retention
from profiling.server.retention.options import RetentionOptions
from profiling.server.retention.report import Retention
from server_app.store import past


def test_rows_and_files_are_as_many_after_sixty_rounds_as_after_thirty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(past, "KEPT_ROUNDS", 10)
    lines: list[str] = []
    document = measure_retention(RetentionOptions(60, 2, 2), lines.append)
    first, last = document["looks"]
    assert (first["round_num"], last["round_num"], len(lines)) == (30, 60, 2)
    assert first["num_files"] == last["num_files"]
    rows, before = last["num_rows"], first["num_rows"]
    assert {name: rows[name] for name in ("shards", "reports", "clients", "runs")} == {
        name: before[name] for name in ("shards", "reports", "clients", "runs")
    }
    # The last ten rounds, the open one and what waits for it; the first report of each device stays.
    assert 2 * 10 < rows["reports"] <= 2 * 13 and 4 * 10 < rows["shards"] <= 4 * 12
    assert rows["rounds"] == 60
    assert last["num_bytes"] > 0 and last["status_ms"] > 0


def test_what_is_too_large_or_too_slow_is_a_failure() -> None:
    looks = [{"num_bytes": 1, "status_ms": 51.0}, {"num_bytes": 64_000_001, "status_ms": 1.0}]
    assert Retention().failures({"looks": looks}) == [
        "the run keeps 64,000,001 bytes, more than 64,000,000",
        "a status takes 51 ms, more than 50",
    ]
    assert Retention().failures({"looks": [{"num_bytes": 64_000_000, "status_ms": 50.0}]}) == []
