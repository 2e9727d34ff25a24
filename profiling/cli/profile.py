"""``gkt profile``: what training costs a device, beside the networks it cannot train."""

from __future__ import annotations

import pkgutil

import click

from gkt_core.cli import Command, Group
from profiling.frame.command import measurement_command
from profiling.frame.registry import MEASUREMENTS, Entry, measurement

# Beside the measurements; each module is imported when its command is called.
_COMMANDS = {
    "all": Entry("profiling.cli.all:measure_all", "Every report of this machine with one command."),
    "diff": Entry(
        "profiling.frame.diff.command:diff", "What changed between two documents, noise considered."
    ),
    "show": Entry("profiling.cli.show:show", "A saved document as tables, Markdown, HTML or picture."),
}


class LazyGroup(Group):
    """A group that imports a command only when it is called: ``gkt profile edge`` never touches torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted({**_COMMANDS, **MEASUREMENTS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name in MEASUREMENTS:
            return measurement_command(measurement(cmd_name))
        if cmd_name not in _COMMANDS:
            return None
        command: Command = pkgutil.resolve_name(_COMMANDS[cmd_name].where)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        entries = {**_COMMANDS, **MEASUREMENTS}
        with formatter.section("Commands"):
            formatter.write_dl([(name, entries[name].summary) for name in sorted(entries)])


@click.group(cls=LazyGroup)
def profile() -> None:
    """Measure what training costs a device."""
