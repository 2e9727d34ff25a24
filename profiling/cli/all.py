"""``gkt profile all``: every report of a machine with one command, which goes on where it was stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from gkt_core.cli import Command, emit_json
from gkt_core.errors import InputError, needs
from profiling.frame.output import SUFFIXES
from profiling.frame.registry import MEASUREMENTS, measurement, read_document

# To see that everything works; what each measurement takes for it stands with the measurement.
_QUICK_EXPORT = ("--image-size", "16")
_QUICK_DEMO = (
    *("--limit", "300", "--rounds", "2", "--server-epochs", "1"),
    *("--server-batch-size", "16", "--server-threads", "1"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One command of ``gkt``.

    Attributes:
        name: Of its report, or of its folder in the work folder.
        arguments: After ``gkt``.
        suffixes: Of the files of its report; empty if it writes a folder, named by ``--out``.
        programs: Programs that it needs.
    """

    name: str
    arguments: tuple[str, ...]
    suffixes: tuple[str, ...] = SUFFIXES
    programs: tuple[str, ...] = ()

    @property
    def is_report(self) -> bool:
        """Whether it writes a report, and not a folder that others need."""
        return bool(self.suffixes)


def steps(work_dir: Path, dataset: str, threads: int, *, is_quick: bool = False) -> list[Step]:
    """What is measured: first what the plan is made from, then the other measurements of the registry.

    Args:
        work_dir: Where bundles and runs lie.
        dataset: Of ``gkt profile privacy``.
        threads: Of every timed step.
        is_quick: Whether it is only to see that it works.
    """

    def profile(name: str, *arguments: str, report: str = "") -> Step:
        made = measurement(name)
        quick = made.quick if is_quick else ()
        suffixes = SUFFIXES if made.plots else tuple(suffix for suffix in SUFFIXES if suffix != ".png")
        return Step(
            report or name, ("profile", name, *arguments, *quick), suffixes, programs=tuple(made.programs)
        )

    def folder(name: str, *arguments: str) -> Step:
        return Step(name, arguments, suffixes=())

    threaded = ("--threads", str(threads))
    demo, other, edge_file = (str(work_dir / name) for name in ("demo", "other-demo", "edge-demo.json"))
    edge = ("--artifacts", str(work_dir / "artifacts"), "--pin", *threaded, "--sustained-seconds", "60")
    export, short = (_QUICK_EXPORT, _QUICK_DEMO) if is_quick else (("--image-size", "32"), ())
    processes = str(min(4, max(2, os.cpu_count() or 1)))
    on_demo = profile(
        "edge",
        *("--artifacts", str(work_dir / "demo" / "artifacts"), "--sustained-seconds", "60"),
        *("--processes", processes),
    )
    chosen = [
        folder("artifacts", "export", "--num-classes", "10", *export),
        profile("compare", "--pin", *threaded),
        profile("compare", "--num-classes", "100", "--pin", *threaded, report="compare-100-classes"),
        profile("engines", *threaded),
        profile("edge", *edge, "--engine", "portable"),
        profile("edge", *edge, "--engine", "ort-training", report="edge-ort-training"),
        profile("simulation", *threaded),
        folder("demo", "demo", "--meter-wire", *short),
        profile("traffic", "--demo-dir", demo),
        profile("privacy", "--dataset", dataset),
        # Other devices, samples and rounds than those that the plan's constants come from.
        folder(
            "other-demo",
            *("demo", "--limit", "900", "--server-epochs", "3", *short),
            *("--seed", "1", "--clients", "2", "--rounds", "4"),
        ),
        folder("edge-demo", *on_demo.arguments, "--out", edge_file),
        Step(
            "plan",
            (
                *("plan", "--devices", "1e6", "--samples", "200", "--image-size", "16"),
                *("--edge", edge_file, "--run", demo, "--validate", other),
            ),
        ),
    ]
    names = {step.name for step in chosen}
    return [*chosen, *(profile(name) for name in MEASUREMENTS if name not in names)]


@click.command("all", cls=Command, example="gkt profile all --out-dir results")
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
    """Measure everything here, one measurement after the other, in about two hours.

    Leave the machine alone meanwhile. Whatever is there already is kept: after a stop, the same command goes
    on; remove a report to measure it again. What needs a program that is not installed is left out by name.
    """
    chosen = steps(work_dir, dataset, threads, is_quick=is_quick)
    names = [step.name for step in chosen]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise InputError(f"unknown step {', '.join(unknown)}, expected some of {', '.join(names)}")
    if is_listed:
        for step in chosen:
            click.echo("gkt " + " ".join([*step.arguments, *_outputs(step, out_dir, work_dir)]))
        return
    _run([step for step in chosen if not only or step.name in only], out_dir, work_dir)
    if as_json:
        reports = [step.name for step in chosen if step.is_report and is_done(step, out_dir, work_dir)]
        emit_json({name: str(out_dir / f"{name}.json") for name in reports})


def _run(chosen: Iterable[Step], out_dir: Path, work_dir: Path) -> None:
    with needs("all"):
        # A device has no psutil, and measures with gkt profile edge alone.
        from profiling.frame.processes import ProcessGroup  # noqa: PLC0415
    console = Console(stderr=True, highlight=False)
    with ProcessGroup() as processes:
        for step in chosen:
            missing = [program for program in step.programs if shutil.which(program) is None]
            if is_done(step, out_dir, work_dir):
                console.print(f"{step.name}: there already", markup=False)
                continue
            if missing:
                console.print(f"{step.name}: left out, {', '.join(missing)} is not installed", markup=False)
                continue
            console.print(f"{step.name}: gkt {' '.join(step.arguments)}", markup=False, soft_wrap=True)
            if not step.is_report:
                # What an earlier call left unfinished; no command writes into it.
                shutil.rmtree(work_dir / step.name, ignore_errors=True)
            arguments = [*step.arguments, *_outputs(step, out_dir, work_dir)]
            processes.run(step.name, arguments, log=work_dir / "logs" / f"{step.name}.log")


def is_done(step: Step, out_dir: Path, work_dir: Path) -> bool:
    """Whether a step's files are there and whole."""
    if step.is_report:
        try:
            read_document(out_dir / f"{step.name}.json")
        except InputError:
            return False
        return all((out_dir / f"{step.name}{suffix}").is_file() for suffix in step.suffixes)
    if step.arguments[0] == "demo":
        return (work_dir / step.name / "report.json").is_file()
    folder = work_dir / step.name
    return (folder / "manifest.json").is_file() or folder.with_suffix(".json").is_file()


def _outputs(step: Step, out_dir: Path, work_dir: Path) -> Sequence[str]:
    if step.is_report:
        return [part for suffix in step.suffixes for part in ("--out", str(out_dir / f"{step.name}{suffix}"))]
    return [] if "--out" in step.arguments else ["--out", str(work_dir / step.name)]
