"""What a report is made of: titled tables with notes, and plots. Knows no format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """One table with its title and what must be said about it.

    Attributes:
        title: What is shown, units included.
        headings: One a column; a line break is kept on the screen only.
        rows: Cells as text; the first column is aligned to the left, the others to the right.
        notes: Sentences below the table.
        is_folded: Whether a page shows its title only, until somebody opens it.
    """

    title: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = field(default_factory=tuple)
    is_folded: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture of a report.

    Attributes:
        name: For its anchor and its alternative text.
        draw: Makes a ``matplotlib.figure.Figure`` from the document.
    """

    name: str
    draw: Callable[[Document], Any]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report, ready to be printed or written in any format.

    Attributes:
        title: Of the report.
        sections: Tables, in order.
        plots: Pictures, the most telling one first.
    """

    title: str
    sections: Sequence[Section]
    plots: Sequence[Plot] = ()


def machine_section(document: Document) -> Section:
    """The machine that the numbers come from, and what nobody measured: the end of every report."""
    machine = document["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return Section(
        title="Machine",
        notes=(
            f"{machine['cpu_model']}, {machine['num_usable_cores']} of {machine['num_cores']} cores, "
            f"{machine['system']}, Python {machine['python']}, {packages}.",
            "Not measured: " + "; ".join(document["not_measured"]) + ".",
        ),
    )
