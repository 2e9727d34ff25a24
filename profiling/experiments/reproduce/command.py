"""The command ``gkt reproduce``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gkt_core.cli import emit_json
from gkt_core.config.run_config import PRECISIONS
from gkt_core.data.datasets import load_dataset
from gkt_core.errors import ConfigError, GKTError, MissingExtraError
from profiling.experiments.reproduce.experiments import COUNTED, NAMES, experiment
from profiling.experiments.reproduce.scales import SCALES


@click.command()
@click.argument("name", type=click.Choice([*NAMES, "all"]))
@click.option(
    "--scale",
    "scale_name",
    type=click.Choice(list(SCALES)),
    default="small",
    show_default=True,
    help="full: the paper's setting, for a GPU. small, mini: for two CPU cores. tiny: a smoke test.",
)
@click.option("--seeds", "num_seeds", type=int, help="Seeds a cell. [default: 2 for small, 3 for full]")
@click.option("--cifar10", default="cifar10", show_default=True, help="cifar10 (downloaded), or PATH.npz.")
@click.option("--cifar100", default="cifar100", show_default=True, help="cifar100 (downloaded), or PATH.npz.")
@click.option("--cinic10", default="", help="Folder of CINIC-10's images.")
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Where downloads are kept.",
)
@click.option("--only", help="Only cells whose row or column holds this text, such as 'CIFAR-10 IID'.")
@click.option(
    "--large-network", type=click.Choice(["resnet56", "resnet110"]), help="Only cells of this network."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    show_default=True,
    help="Of the large networks' training. auto: bf16 on a GPU or a CPU with AMX, else fp32.",
)
@click.option("--jobs", "num_jobs", type=int, help="Runs at a time. [default: a core each; 1 on a GPU]")
@click.option("--threads", "num_threads", type=int, help="CPU threads of each. [default: cores / jobs]")
@click.option("--report-only", is_flag=True, help="Run nothing; write the report of what is there.")
@click.option("--dry-run", is_flag=True, help="Print the runs that are missing, and stop.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("gkt-reproduction"),
    show_default=True,
    help="Runs and reports of one scale; the same command goes on where a stopped one was.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report to stdout as JSON.")
def reproduce(
    *,
    name: str,
    scale_name: str,
    num_seeds: int | None,
    cifar10: str,
    cifar100: str,
    cinic10: str,
    data_root: Path,
    only: str | None,
    large_network: str | None,
    device: str,
    precision: str,
    num_jobs: int | None,
    num_threads: int | None,
    report_only: bool,
    dry_run: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Rerun a table or figure of the paper and print its numbers beside ours.

    Runs what is missing (each a gkt simulate), then writes NAME.md, NAME.html and NAME.json into --out, with
    the number of seeds and their spread. A cell whose data cannot be had says "not run".

    \b
    gkt reproduce table1 --scale small --cifar10 cifar10.npz
    gkt reproduce table2 --scale full --device cuda
    gkt reproduce fig4
    """  # noqa: D301 - click looks for the character itself
    if any(number is not None and number < 1 for number in (num_seeds, num_jobs, num_threads)):
        raise ConfigError("--seeds, --jobs and --threads must be at least 1")
    scale = SCALES[scale_name]
    seeds = tuple(range(num_seeds or scale.num_seeds))
    try:
        from profiling.experiments.reproduce.runs import Execution  # noqa: PLC0415
        from profiling.experiments.reproduce.session import Selection, Session  # noqa: PLC0415 - matplotlib, torch
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    sources = {"cifar10": cifar10, "cifar100": cifar100, "cinic10": cinic10}
    jobs = num_jobs or (1 if device == "cuda" else os.cpu_count() or 1)
    execution = Execution(
        sources=sources,
        data_root=data_root,
        device=device,
        precision=_precision(precision, device),
        num_jobs=jobs,
        num_threads=num_threads or max(1, (os.cpu_count() or 1) // jobs),
    )
    session = Session(out, scale, seeds, execution, Selection(only, large_network))
    command = _shown_command()
    reports: list[dict[str, Any]] = []
    for each in NAMES if name == "all" else (name,):
        if each in COUNTED:
            if not dry_run:
                reports.append(session.count(each, command))
            continue
        table = experiment(each, scale)
        missing = {} if report_only and not dry_run else _missing_data(table, sources, data_root)
        if dry_run:
            for job in session.missing_runs(table, missing):
                click.echo(job.name)
            continue
        if not report_only:
            session.run(table, missing)
        reports.append(session.report(table, missing, command))
    if as_json:
        emit_json(reports[0] if len(reports) == 1 else reports)
        return
    for report in reports:
        _print(report, out)


def _precision(wanted: str, device: str) -> str:
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bf16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "fp32"
    return "bf16" if "amx_bf16" in flags else "fp32"


def _missing_data(table: Any, sources: dict[str, str], data_root: Path) -> dict[str, str]:
    """Datasets of a table that cannot be loaded here, and why."""
    missing = {}
    for dataset in sorted({cell.spec.dataset for cell in table.cells}):
        if not sources[dataset]:
            missing[dataset] = f"not run (no data: name it with --{dataset})"
            continue
        try:
            load_dataset(sources[dataset], data_root=data_root)
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
    console = Console()
    console.print(f"\n[bold]{report['title']}[/bold]  ({report['scale']})")
    if "bars" in report:
        table = Table("", report["bars"][0]["unit"], "paper")
        for bar in report["bars"]:
            table.add_row(bar["label"], f"{bar['value']:,.2f}", bar["paper"])
    else:
        from profiling.experiments.reproduce.report import ours, paper  # noqa: PLC0415 - matplotlib

        table = Table("", "", "paper", "ours")
        for cell in report["cells"]:
            table.add_row(cell["row"], cell["column"], paper(cell["paper"]), ours(cell))
    console.print(table)
    console.print(f"written to {out / report['name']}.md, .html and .json", soft_wrap=True)
