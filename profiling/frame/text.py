"""A report on the screen and as Markdown."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from profiling.frame.sections import Page, Section


def print_page(page: Page, console: Console) -> None:
    """Print every section as a table with its notes."""
    for section in page.sections:
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
            style = "dim" if section.rows else ""
            console.print(Text(note, style=style), soft_wrap=not console.is_terminal)
        console.print()


def to_markdown(page: Page) -> str:
    """Write a whole report in GitHub's Markdown."""
    lines = [f"# {page.title}", ""]
    for section in page.sections:
        lines += [f"## {section.title}", "", *section_markdown(section)]
    return "\n".join(lines)


def section_markdown(section: Section) -> list[str]:
    """Table and notes of a section, without its title; each ends with an empty line."""
    lines = []
    if section.rows:
        lines.append("| " + " | ".join(map(_cell, section.headings)) + " |")
        lines.append("|---|" + "---:|" * (len(section.headings) - 1))
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in section.rows]
        lines.append("")
    for note in section.notes:
        lines += [note, ""]
    return lines


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")
