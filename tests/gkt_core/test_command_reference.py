"""``docs/commands.md`` is what the commands say."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from gkt_core.cli import Command
from gkt_core.command_reference import PAGE, reference, section
from tests.conftest import LONGEST_SECONDS


def test_the_page_is_what_the_commands_say() -> None:
    # In a process of its own: tests beside this one register networks, which help texts list.
    code = "from gkt_core.command_reference import reference; print(reference(), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=LONGEST_SECONDS
    )
    assert done.stdout == PAGE.read_text(encoding="utf-8"), "run `make docs`"


@pytest.mark.parametrize("command", ["gkt serve", "gkt edge run", "gkt profile edge", "gkt clients list"])
def test_every_command_has_a_section(command: str) -> None:
    assert f"\n## {command}\n" in reference()


def test_a_section() -> None:
    @click.command(cls=Command, example="gkt bake --flour rye")
    @click.argument("oven")
    @click.option(
        "--flour", type=click.Choice(["rye", "wheat"]), required=True, help="What | of.", envvar="FLOUR"
    )
    @click.option("--minutes", default=40, show_default=True, help="How long.")
    @click.option("--steam/--no-steam", help="Wet.")
    @click.option("--secret", hidden=True)
    def bake(**_: object) -> None:
        """Bake bread.

        \b
        in an oven
        """

    assert section("gkt bake", click.Context(bake, info_name="bake")).splitlines() == [
        "## gkt bake",
        "",
        "Bake bread.",
        "",
        "```",
        "in an oven",
        "```",
        "",
        "Usage: `gkt bake [OPTIONS] OVEN`",
        "",
        "```bash",
        "gkt bake --flour rye",
        "```",
        "",
        "| option | | default | values |",
        "|---|---|---|---|",
        "| `--flour` | What \\| of. Also from the environment: FLOUR. | required | rye, wheat |",
        "| `--minutes INTEGER` | How long. | 40 |  |",
        "| `--steam/--no-steam` | Wet. |  |  |",
    ]
