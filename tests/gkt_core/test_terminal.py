"""In a file, lines are as long as they are and tables as wide as they need."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from gkt_core.terminal import console


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where output goes to a file: nobody says how wide that is."""
    monkeypatch.delenv("COLUMNS", raising=False)


def test_a_table_is_not_folded_in_a_file() -> None:
    made = console()
    made.file = io.StringIO()
    table = Table("quantity", "value")
    table.add_row("x" * 100, "y" * 60)
    made.print(table)
    assert "x" * 100 in made.file.getvalue() and "y" * 60 in made.file.getvalue()


def test_a_given_width_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert console(stderr=True).width == 50
