"""``gkt profile``: what training costs a device, beside the networks it cannot train."""

from __future__ import annotations

import importlib

import click

from profiling.frame.command import measurement_command
from profiling.frame.registry import MEASUREMENTS, measurement

# Each module is imported when its command is called: `gkt profile edge` never touches torch.
_COMMANDS = {
    "all": ("profiling.cli.all:measure_all", "Every report of this machine with one command."),
    "compare": ("profiling.device.compare.command:compare", "Edge networks beside ResNet-56 and ResNet-110."),
    "diff": ("profiling.frame.diff.command:diff", "What changed between two documents, noise considered."),
    "edge": ("profiling.device.edge.command:edge", "On the device itself: time, memory, sizes, energy."),
    "privacy": ("profiling.privacy.command:privacy", "What an attacker makes of uploaded features."),
    "show": ("profiling.cli.show:show", "A saved document as tables, Markdown, HTML or picture."),
    "simulation": ("profiling.experiments.speed.command:simulation", "How fast gkt simulate trains."),
    "traffic": ("profiling.traffic.command:traffic", "Bytes of FedGKT, split learning and FedAvg."),
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted([*_COMMANDS, *MEASUREMENTS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name in MEASUREMENTS:
            return measurement_command(measurement(cmd_name))
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        summaries = {name: text for name, (_, text) in _COMMANDS.items()}
        summaries |= {name: entry.summary for name, entry in MEASUREMENTS.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(summaries.items()))


@click.group(cls=LazyGroup)
def profile() -> None:
    """Measure what training costs a device."""
