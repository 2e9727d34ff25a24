"""A report on the screen and as Markdown."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from profiling.frame.kinds import ReportKind


def print_report(kind: ReportKind, console: Console) -> None:
    """Print every section as a table with its notes."""
    for section in kind.sections:
        if section.rows:
            table = Table(title=Text(section.title), title_style="italic")
            for column, heading in enumerate(section.headings):
                table.add_column(Text(heading), justify="right" if column else "left")
            for row in section.rows:
                table.add_row(*map(Text, row))
            console.print(table)
        else:
            console.print(Text(section.title, style="bold"))
        for note in section.notes:
            console.print(Text(note, style="dim" if section.rows else ""))
        console.print()


def to_markdown(kind: ReportKind) -> str:
    """The same sections as GitHub's Markdown."""
    lines = [f"# {kind.title}", ""]
    for section in kind.sections:
        lines += [f"## {section.title}", ""]
        if section.rows:
            lines.append("| " + " | ".join(_cell(heading) for heading in section.headings) + " |")
            lines.append(
                "|" + "|".join("---:" if column else "---" for column in range(len(section.headings)))
            )
            lines[-1] += "|"
            lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in section.rows]
            lines.append("")
        for note in section.notes:
            lines += [note, ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")
