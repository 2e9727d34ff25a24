"""The click command of a measurement: its options, where its report goes, and how it ends."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

from gkt_core.cli import Command
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.errors import ConfigError, needs
from profiling.frame.live import announcing
from profiling.frame.measurement import Measurement
from profiling.frame.output import emit_report, output_options


def measurement_command(measurement: Measurement[Any]) -> click.Command:
    """Make ``gkt profile NAME`` of a measurement.

    The command raises ``MissingExtraError`` where the measurement's extra is not installed, and the
    measurement's own error where the document names failures.
    """
    example = measurement.example or f"gkt profile {measurement.name} --out {measurement.name}.json"

    @click.command(measurement.name, cls=Command, help=inspect.getdoc(type(measurement)), example=example)
    @dataclass_options(measurement.options)
    @output_options
    def command(*, options: Any, outs: tuple[Path, ...], as_json: bool) -> None:
        if not measurement.plots and any(path.suffix == ".png" for path in outs):
            raise ConfigError(f"gkt profile {measurement.name} has no picture: leave out --out NAME.png")
        with needs(measurement.extra), announcing() as announce:
            document = measurement.document(options, announce)
        emit_report(document, outs, as_json)
        if failures := measurement.failures(document):
            raise measurement.error("; ".join(failures))

    return command
