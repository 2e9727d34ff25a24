"""Tables from the entries of a document: each column is a heading and a format of the values below it."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from profiling.frame.measuring.step_time import is_noisy
from profiling.frame.sections import Section
from profiling.frame.units import format_bytes

NOT_MEASURED = "not measured"


class _Cells(string.Formatter):
    """Formats as of :meth:`str.format`, ``bytes``, ``words``, ``median``, and millions such as ``.2M``."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if value is None:
            return NOT_MEASURED
        if value == "":
            return ""
        if format_spec == "bytes":
            return format_bytes(value)
        if format_spec == "words":
            return str(value).replace("_", " ")
        if format_spec == "median":
            return f"{value['median_ms']:,.1f}" + (" (too noisy)" if is_noisy(value) else "")
        if format_spec.endswith("M"):
            return f"{value / 1e6:,{format_spec[:-1]}f} M"
        return format(value, format_spec)


def table(
    title: str, columns: Mapping[str, str], entries: Iterable[Mapping[str, Any]], notes: Sequence[str] = ()
) -> Section:
    """Make a table with a row for each entry.

    Args:
        title: What is shown, units included.
        columns: By heading a format over the entry's keys: ``{warm_ms[p90_ms]:,.1f}``, ``{num_bytes:bytes}``,
            ``{name:words}``, ``{macs:.3M}``; of a time, ``{warm_ms:median}`` is its median in milliseconds,
            and says if that is too noisy to quote. ``entry`` is the whole entry. What is None was not
            measured, what is empty stays so.
        entries: In this order.
        notes: Sentences below the table.
    """
    cells = _Cells()
    rows = [
        [cells.vformat(text, (), {"entry": entry, **entry}) for text in columns.values()] for entry in entries
    ]
    return Section(title, tuple(columns), rows, notes)


def named(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give entries that a document holds by name their name as a key."""
    return ({"name": name, **entry} for name, entry in entries.items())


def names_and_values(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Make an entry with ``name`` and ``value`` of each value that a document holds by name."""
    return ({"name": name, "value": value} for name, value in values.items())
