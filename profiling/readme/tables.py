"""The measured tables of the top README, written from ``profiling/results`` between markers.

``python -m profiling.readme.tables`` (``make readme``) rewrites them after ``gkt profile all``; a test
holds the README to the results. A block begins with ``<!-- measured: NAME -->``
and ends with ``<!-- end of NAME -->``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from gkt_core.errors import InputError
from gkt_core.files import write_atomically
from profiling.readme.blocks import BLOCKS, RESULTS
from profiling.readme.paper_blocks import PAPER_COMMANDS
from profiling.readme.server_blocks import SERVER_COMMANDS

README = Path(__file__).parents[2] / "README.md"
COMMANDS = {**SERVER_COMMANDS, **PAPER_COMMANDS}
_COMMAND = "gkt profile all --out-dir profiling/results"


def block(name: str, results: Path = RESULTS) -> str:
    """The lines between a block's markers.

    Raises:
        InputError: The report is there and is not what ``gkt profile`` or ``gkt reproduce`` writes.
    """
    path = results / f"{name}.json"
    if not path.is_file():
        return f"`{name}`: not measured yet; `{COMMANDS.get(name, _COMMAND)}` does."
    try:
        return "\n".join(BLOCKS[name](json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be shown ({type(error).__name__}: {error}): run {COMMANDS.get(name, _COMMAND)}"
        ) from error


def rewrite(text: str, results: Path = RESULTS) -> str:
    """A README with every block as the results say.

    Raises:
        InputError: A marker names no block, or a block has no end.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        if name not in BLOCKS:
            raise InputError(f"README marks {name!r}, expected one of {', '.join(BLOCKS)}")
        return f"<!-- measured: {name} -->\n{block(name, results)}\n<!-- end of {name} -->"

    if text.count("<!-- measured: ") != text.count("<!-- end of "):
        raise InputError("a measured block of the README has no end: write <!-- end of NAME --> after it")
    return re.sub(r"<!-- measured: ([\w/-]+) -->\n.*?<!-- end of \1 -->", replaced, text, flags=re.DOTALL)


@click.command()
def main() -> None:
    """Rewrite the measured tables of the README."""
    before = README.read_text(encoding="utf-8")
    after = rewrite(before)
    write_atomically(README, after.encode())
    click.echo("README.md was up to date" if after == before else "README.md rewritten")


if __name__ == "__main__":
    main()
