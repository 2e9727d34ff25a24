"""The measured tables of ``docs/results.md``, written from ``profiling/results`` between markers.

``python -m profiling.readme.tables`` (``make readme``) rewrites them after ``gkt profile all``; a test holds
the page to the results. A block begins with ``<!-- measured: NAME -->``, ends with ``<!-- end of NAME -->``
and shows those sections of a report that the report itself chooses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import click

from gkt_core.errors import InputError
from gkt_core.files import write_atomically
from profiling.frame.measuring.step_time import noise_note
from profiling.frame.registry import report_of
from profiling.frame.sections import Document, Section
from profiling.frame.text import section_markdown
from profiling.readme.paper import PAPER_TABLES, paper_command, paper_section

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "profiling" / "results"
PAGE = ROOT / "docs" / "results.md"
_MARKED = re.compile(r"<!-- measured: ([\w/-]+) -->\n.*?<!-- end of \1 -->", flags=re.DOTALL)


def command_of(name: str) -> str:
    """The command that measures what a block shows."""
    if name in PAPER_TABLES:
        return paper_command(name)
    return f"gkt profile all --out-dir profiling/results --only {name}"


def block(name: str, results: Path = RESULTS) -> str:
    """The lines between a block's markers.

    Raises:
        InputError: The report is there and is not what ``gkt profile`` or ``gkt reproduce`` writes.
    """
    path = results / f"{name}.json"
    if not path.is_file():
        return f"`{name}`: not measured yet; `{command_of(name)}` does."
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if name in PAPER_TABLES:
            return _markdown([paper_section(document)])
        return _block(name, document, results)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be shown ({type(error).__name__}: {error}): run {command_of(name)}"
        ) from error


def _block(name: str, document: Document, results: Path) -> str:
    report = report_of(document)
    machine, sections = document["machine"], report.readme(document)
    lines = [
        f"[{report.title(document)}](../profiling/results/{name}.md) "
        f"({machine['cpu_model']}, {machine['num_usable_cores']} cores, Python {machine['python']})",
        "",
        _markdown(sections),
    ]
    noise = document.get("noise", {})
    if noise.get("too_noisy_to_quote"):
        note = noise_note(noise)
        lines += [] if any(note in section.notes for section in sections) else ["", note]
    if report.plots and (results / f"{name}.png").is_file():
        lines += ["", f"![{report.plots[0].name}](../profiling/results/{name}.png)"]
    return "\n".join(lines)


def _markdown(sections: Sequence[Section]) -> str:
    lines = [line for section in sections for line in (f"{section.title}:", "", *section_markdown(section))]
    return "\n".join(lines).rstrip()


def rewrite(text: str, results: Path = RESULTS) -> str:
    """A page with every block as the results say.

    Raises:
        InputError: A block has no end.
    """
    if text.count("<!-- measured: ") != len(_MARKED.findall(text)):
        raise InputError("a measured block has no end: write <!-- end of NAME --> after it")

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- measured: {name} -->\n{block(name, results)}\n<!-- end of {name} -->"

    return _MARKED.sub(replaced, text)


@click.command()
def main() -> None:
    """Rewrite the measured tables of docs/results.md."""
    before = PAGE.read_text(encoding="utf-8")
    after = rewrite(before)
    write_atomically(PAGE, after.encode())
    click.echo("docs/results.md was up to date" if after == before else "docs/results.md rewritten")


if __name__ == "__main__":
    main()
