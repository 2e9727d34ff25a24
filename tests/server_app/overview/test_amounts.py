"""Bytes and durations as a person reads them."""

from __future__ import annotations

import pytest

from server_app.overview.amounts import as_bytes, as_duration, listed


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (33_400, "33.4 kB"), (999_949, "1.0 MB"),
     (123_456_789, "123 MB"), (5.2e12, "5.2 TB"), (5.2e16, "52000 TB")],
)  # fmt: skip
def test_bytes(number: float, words: str) -> None:
    assert as_bytes(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (60, "1 min"), (61, "1 min 1 s"), (3599.6, "1 h"),
     (5400, "1 h 30 min"), (86_400, "1 day"), (90_000, "1 day 1 h"), (200_000, "2 days 8 h")],
)  # fmt: skip
def test_durations(seconds: float, words: str) -> None:
    assert as_duration(seconds) == words


def test_many_names() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefg"), 2) == "a, b and 5 others"
