"""The Markdown pages of the repository, and the commands that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from gkt_core.cli import gkt
from tests.conftest import ROOT
from tests.house.test_imports import PRODUCT

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    + [
        page
        for package in PRODUCT
        for page in (ROOT / package).rglob("*.md")
        # What npm installs beside the TypeScript device is not ours.
        if "node_modules" not in page.parts
    ]
)
# Decisions and reports say what was so when they were written.
LIVING = [page for page in PAGES if not {"adr", "results"} & {folder.name for folder in page.parents}]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    """The page's path in the repository, as tests are named by it."""
    return str(page.relative_to(ROOT))


def text_of(page: Path | str) -> str:
    """The page as it is."""
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCED.sub("", text_of(page))


def blocks_of(page: Path | str, language: str) -> list[str]:
    """The fenced blocks in a language; an empty name for those without one."""
    return [text for named, text in _FENCED.findall(text_of(page)) if named == language]


def inline_code(page: Path) -> list[str]:
    """What stands between two backticks, on one line each."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose_of(page))]


def shell_lines(block: str) -> Iterator[str]:
    """The command lines of a block, without comments, and one for each command of a line."""
    for line in block.replace("\\\n", " ").splitlines():
        yield from re.split(r" ?&& ?| & ?|;|\|", line.split("#")[0] + " ")


def all_commands() -> dict[str, click.Command]:
    """Every command that does something, by its whole name; groups themselves do nothing."""

    def below(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
        ctx = click.Context(group)
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from below(command, f"{path} {name}")
            else:
                yield f"{path} {name}", command

    return dict(below(gkt, "gkt"))


def options_of(command: click.Command) -> set[str]:
    """All names of a command's options, ``-h`` and its like included."""
    params = command.get_params(click.Context(command))
    return {name for param in params for name in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}
