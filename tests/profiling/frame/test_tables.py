"""Tables from entries: formats of their own, and what was not measured."""

from __future__ import annotations

import pytest

from profiling.frame.measuring.step_time import TIME_COLUMNS
from profiling.frame.tables import named, names_and_values, table
from profiling.frame.units import format_duration

COLUMNS = {
    "name": "{name:words}",
    "p90": "{time_ms[p90_ms]:,.1f}",
    "size": "{size:bytes}",
    "MACs": "{macs:.2M}",
}


def test_a_row_for_each_entry() -> None:
    entry = {"time_ms": {"p90_ms": 1234.56}, "size": 2_000_000, "macs": 9_618_000_000}
    made = table("Costs", COLUMNS, named({"one_step": entry}), notes=("quiet",))
    assert made.headings == tuple(COLUMNS)
    assert made.rows == [["one step", "1,234.6", "2.0 MB", "9,618.00 M"]]
    assert (made.title, made.notes) == ("Costs", ("quiet",))


def test_none_was_not_measured_and_nothing_is_nothing() -> None:
    made = table("", {"": "{name}", "size": "{value:bytes}"}, names_and_values({"a": None, "b": "", "c": 0}))
    assert made.rows == [["a", "not measured"], ["b", ""], ["c", "0 B"]]


def test_a_key_that_is_missing_is_an_error() -> None:
    with pytest.raises(KeyError, match="size"):
        table("", {"size": "{size:bytes}"}, [{"name": "a"}])


@pytest.mark.parametrize(
    ("iqr_ms", "drift", "shown"),
    [(10.0, 0.0, "100.0"), (16.0, 0.0, "100.0 (too noisy)"), (1.0, -0.06, "100.0 (too noisy)")],
)
def test_a_median_that_moved_too_much_says_so_where_it_stands(
    iqr_ms: float, drift: float, shown: str
) -> None:
    time = {"median_ms": 100.0, "iqr_ms": iqr_ms, "drift": drift, "p90_ms": 110.0, "n": 9}
    made = table("", {"nested": "{warm_ms:median}", **TIME_COLUMNS}, [{"warm_ms": time, **time}])
    assert list(made.rows[0][:2]) == [shown, shown]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.1181, "0.118 s"), (119, "119 s"), (150, "2.5 min"), (7200, "2.0 hours"), (86_400 * 12, "12 days"),
     (3.25e9, "103 years")],
)  # fmt: skip
def test_durations_are_in_units_that_people_think_in(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words
