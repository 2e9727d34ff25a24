"""``gkt profile all``: every report of a machine with one command, which goes on where it was stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from gkt_core.cli import emit_json
from gkt_core.errors import InputError, MissingExtraError
from profiling.frame.registry import read_document

_FORMATS = (".json", ".md", ".html", ".png")


@dataclass(frozen=True, slots=True)
class Step:
    """One command of ``gkt``.

    Attributes:
        name: Of its report, or of its folder in the work folder.
        arguments: After ``gkt``.
        is_report: Whether it writes a report; else a folder, named by ``--out``.
    """

    name: str
    arguments: tuple[str, ...]
    is_report: bool = True


@dataclass(frozen=True, slots=True)
class Length:
    """How long each step measures: arguments of its command.

    Attributes:
        compare: Of ``gkt profile compare``.
        edge: Of ``gkt profile edge``.
        export: Of the bundle that ``gkt profile edge`` measures.
        engines: Of ``gkt profile engines``.
        demo: Of both demos.
        privacy: Of ``gkt profile privacy``.
        simulation: Of ``gkt profile simulation``.
    """

    compare: tuple[str, ...] = ()
    edge: tuple[str, ...] = ("--sustained-seconds", "60")
    export: tuple[str, ...] = ("--image-size", "32")
    engines: tuple[str, ...] = ()
    demo: tuple[str, ...] = ()
    privacy: tuple[str, ...] = ()
    simulation: tuple[str, ...] = ()


WHOLE = Length()
# To see that everything works; numbers that nobody may quote.
QUICK = Length(
    compare=("--image-size", "8", "--batch-size", "4", "--steps", "2", "--warmup", "1", "--no-memory"),
    edge=("--sustained-seconds", "1", "--steps", "5", "--cold-runs", "1"),
    export=("--image-size", "16"),
    engines=(
        "--image-size",
        "8",
        "--batch-size",
        "4",
        "--steps",
        "2",
        "--warmup",
        "1",
        "--no-memory",
        "--no-device-run",
    ),
    demo=(
        *("--limit", "300", "--rounds", "2", "--server-epochs", "1"),
        *("--server-batch-size", "16", "--server-threads", "1"),
    ),
    privacy=("--limit", "200", "--epochs", "1", "--victims", "50"),
    simulation=("--examples", "64", "--server-examples", "64", "--clients", "4", "--repeats", "2"),
)


def steps(work_dir: Path, dataset: str, threads: int, length: Length = WHOLE) -> list[Step]:
    """What is measured, in this order.

    Args:
        work_dir: Where bundles and runs lie.
        dataset: Of ``gkt profile privacy``.
        threads: Of every timed step.
        length: How long.
    """
    threaded = ("--pin", "--threads", str(threads))
    demo, other = str(work_dir / "demo"), str(work_dir / "other-demo")
    edge_file = str(work_dir / "edge-demo.json")
    edge = ("profile", "edge", "--artifacts", str(work_dir / "artifacts"), *threaded, *length.edge)
    compare = ("profile", "compare", *threaded, *length.compare)
    simulation = ("profile", "simulation", "--threads", str(threads), *length.simulation)
    return [
        Step("artifacts", ("export", "--num-classes", "10", *length.export), is_report=False),
        Step("compare", compare),
        Step(
            "compare-100-classes", ("profile", "compare", "--num-classes", "100", *threaded, *length.compare)
        ),
        Step("engines", ("profile", "engines", "--threads", str(threads), *length.engines)),
        Step("edge", (*edge, "--engine", "portable")),
        Step("edge-ort-training", (*edge, "--engine", "ort-training")),
        Step("simulation", simulation),
        Step("demo", ("demo", "--meter-wire", *length.demo), is_report=False),
        Step("traffic", ("profile", "traffic", "--demo-dir", demo)),
        Step("privacy", ("profile", "privacy", "--dataset", dataset, *length.privacy)),
        # Other devices, samples and rounds than those that the plan's constants come from.
        Step(
            "other-demo",
            (
                *("demo", "--limit", "900", "--server-epochs", "3", *length.demo),
                *("--seed", "1", "--clients", "2", "--rounds", "4"),
            ),
            is_report=False,
        ),
        Step(
            "edge-demo",
            (
                *("profile", "edge", "--artifacts", str(work_dir / "demo" / "artifacts")),
                *(*length.edge, "--processes", str(min(4, max(2, os.cpu_count() or 1))), "--out", edge_file),
            ),
            is_report=False,
        ),
        Step(
            "plan",
            (
                *("plan", "--devices", "1e6", "--samples", "200", "--image-size", "16"),
                *("--edge", edge_file, "--run", demo, "--validate", other),
            ),
        ),
    ]


@click.command("all")
@click.option(
    "--out-dir", type=click.Path(path_type=Path), required=True, help="Where the reports go, four files each."
)
@click.option(
    "--work-dir",
    type=click.Path(path_type=Path),
    default=Path("gkt-profile"),
    show_default=True,
    help="Where bundles and runs lie meanwhile.",
)
@click.option("--dataset", default="digits", show_default=True, help="Of gkt profile privacy.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads of every timed step.",
)
@click.option("--quick", "is_quick", is_flag=True, help="Only to see that it works: nothing to quote.")
@click.option("--only", multiple=True, help="Only the steps of this name; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the files of the reports to stdout.")
@click.option("--list", "is_listed", is_flag=True, help="List the commands, and run none.")
def measure_all(
    *,
    out_dir: Path,
    work_dir: Path,
    dataset: str,
    threads: int,
    is_quick: bool,
    only: tuple[str, ...],
    as_json: bool,
    is_listed: bool,
) -> None:
    """Measure everything here: compare, engines, edge, simulation, traffic, privacy and plan, fifty minutes.

    Leave the machine alone meanwhile. Whatever is there already is kept: after a stop, the same command goes
    on; remove a report to measure it again.
    """
    chosen = steps(work_dir, dataset, threads, QUICK if is_quick else WHOLE)
    names = [step.name for step in chosen]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise InputError(f"unknown step {', '.join(unknown)}, expected some of {', '.join(names)}")
    try:
        # Imports psutil's friends; a device has none, and measures with gkt profile edge alone.
        from profiling.frame.processes import ProcessGroup  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    console = Console(stderr=True, highlight=False)
    with ProcessGroup() as processes:
        for step in chosen:
            arguments = [*step.arguments, *_outputs(step, out_dir, work_dir)]
            if is_listed:
                click.echo("gkt " + " ".join(arguments))
                continue
            if only and step.name not in only:
                continue
            if is_done(step, out_dir, work_dir):
                console.print(f"{step.name}: there already", markup=False)
                continue
            console.print(f"{step.name}: gkt {' '.join(step.arguments)}", markup=False, soft_wrap=True)
            if not step.is_report:
                # What an earlier call left unfinished; no command writes into it.
                shutil.rmtree(work_dir / step.name, ignore_errors=True)
            log = work_dir / "logs" / f"{step.name}.log"
            processes.run(step.name, arguments, log=log)
    if as_json:
        reports = [step.name for step in chosen if step.is_report and is_done(step, out_dir, work_dir)]
        emit_json({name: str(out_dir / f"{name}.json") for name in reports})


def is_done(step: Step, out_dir: Path, work_dir: Path) -> bool:
    """Whether a step's files are there and whole."""
    if step.is_report:
        try:
            read_document(out_dir / f"{step.name}.json")
        except InputError:
            return False
        return all((out_dir / f"{step.name}{suffix}").is_file() for suffix in _FORMATS)
    if step.arguments[0] == "demo":
        return (work_dir / step.name / "report.json").is_file()
    folder = work_dir / step.name
    return (folder / "manifest.json").is_file() or folder.with_suffix(".json").is_file()


def _outputs(step: Step, out_dir: Path, work_dir: Path) -> Sequence[str]:
    if step.is_report:
        return [part for suffix in _FORMATS for part in ("--out", str(out_dir / f"{step.name}{suffix}"))]
    return [] if "--out" in step.arguments else ["--out", str(work_dir / step.name)]
