"""The command ``gkt reproduce``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.data.datasets import load_dataset
from gkt_core.errors import GKTError, needs
from gkt_core.terminal import console
from profiling.experiments.reproduce.experiments import COUNTED, NAMES, experiment
from profiling.experiments.reproduce.options import ReproduceOptions


@click.command(
    cls=Command,
    example="gkt reproduce table1 --scale small --cifar10 cifar10.npz\n"
    "gkt reproduce table2 --scale full --device cuda\n"
    "gkt reproduce fig4",
)
@click.argument("name", type=click.Choice([*NAMES, "all"]))
@dataclass_options(ReproduceOptions)
@json_option("the report as JSON")
def reproduce(name: str, options: ReproduceOptions, as_json: bool) -> None:
    """Rerun a table or figure of the paper and print its numbers beside ours.

    Runs what is missing (each a gkt simulate), then writes NAME.md, NAME.html and NAME.json into --out, with
    the number of seeds and their spread. A cell whose data cannot be had says "not run".
    """
    with needs("all"):
        from profiling.experiments.reproduce.session import Session  # noqa: PLC0415 - matplotlib, torch
    session = Session(options)
    command = _shown_command()
    reports: list[dict[str, Any]] = []
    for each in NAMES if name == "all" else (name,):
        if each in COUNTED:
            if not options.dry_run:
                reports.append(session.count(each, command))
            continue
        table = experiment(each, options.scale)
        missing: dict[str, str] = {}
        if options.dry_run or not options.report_only:
            missing = _missing_data(table, options)
        if options.dry_run:
            session.print_plan(session.missing_runs(table, missing))
            continue
        if not options.report_only:
            session.run(table, missing)
        reports.append(session.report(table, missing, command))
    if as_json:
        emit_json(reports[0] if len(reports) == 1 else reports)
        return
    for report in reports:
        _print(report, options.out)


def _missing_data(table: Any, options: ReproduceOptions) -> dict[str, str]:
    """Datasets of a table that cannot be loaded here, and why."""
    missing = {}
    for dataset in sorted({cell.spec.dataset for cell in table.cells}):
        if not options.sources[dataset]:
            missing[dataset] = f"not run (no data: name it with --{dataset})"
            continue
        try:
            load_dataset(options.sources[dataset], data_root=options.data_root)
        except GKTError as error:
            click.echo(f"{dataset}: {error}", err=True)
            missing[dataset] = "not run (no data)"
    return missing


def _shown_command() -> str:
    """The command line as it was given, but for paths, which are of this machine."""
    context = click.get_current_context()
    parts = ["gkt", "reproduce"]
    for parameter in context.command.params:
        value = context.params[parameter.name or ""]
        if context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.DEFAULT:
            continue
        if parameter.name in ("out", "as_json", "report_only", "data_root", "num_jobs", "num_threads"):
            continue
        if isinstance(parameter, click.Argument):
            parts.append(str(value))
        else:
            parts += [parameter.opts[-1], Path(value).name if isinstance(value, str) else str(value)]
    return shlex.join(parts)


def _print(report: dict[str, Any], out: Path) -> None:
    shown = console()
    shown.print(f"\n[bold]{report['title']}[/bold]  ({report['scale']})")
    if "bars" in report:
        table = Table("", report["bars"][0]["unit"], "paper")
        for bar in report["bars"]:
            table.add_row(bar["label"], f"{bar['value']:,.2f}", bar["paper"])
    else:
        from profiling.experiments.reproduce.report import ours, paper  # noqa: PLC0415 - matplotlib

        table = Table("", "", "paper", "ours")
        for cell in report["cells"]:
            table.add_row(cell["row"], cell["column"], paper(cell["paper"]), ours(cell))
    shown.print(table)
    shown.print(f"written to {out / report['name']}.md, .html and .json", soft_wrap=True)
