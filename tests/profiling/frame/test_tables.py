"""Tables from entries: formats of their own, and what was not measured."""

from __future__ import annotations

import pytest

from profiling.frame.tables import named, names_and_values, table

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
