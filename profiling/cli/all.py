"""``gkt profile all``: every report of a machine with one command, which goes on where it was stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from gkt_core.cli import Command, emit_json
from gkt_core.config.dataclass_options import CheckedOptions, dataclass_options, option
from gkt_core.config.output_path import OUTPUT_FOLDER
from gkt_core.errors import InputError, RunFailedError, needs
from gkt_core.terminal import console
from profiling.frame.output import SUFFIXES
from profiling.frame.registry import MEASUREMENTS, measurement, read_document

# To see that everything works; what a measurement takes for it stands with the measurement.
_QUICK_DEMO = (
    *("--limit", "300", "--rounds", "2", "--server-epochs", "1"),
    *("--server-batch-size", "16", "--server-threads", "1"),
)


@dataclass(frozen=True, slots=True)
class AllOptions(CheckedOptions):
    """What is measured, and where it goes.

    Attributes:
        out_dir: Where the reports go, up to four files each.
        work_dir: Where bundles and runs lie meanwhile.
        dataset: Of gkt profile privacy.
        threads: Threads of every timed step.
        is_quick: Only to see that it works: nothing to quote.
        only: Only the steps of this name; may be repeated.
    """

    out_dir: Path = option(click_type=OUTPUT_FOLDER)
    work_dir: Path = option(Path("gkt-profile"), click_type=OUTPUT_FOLDER)
    dataset: str = "digits"
    threads: int = option(1, low=1)
    is_quick: bool = option(False, flag="--quick")
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One command of ``gkt``.

    Attributes:
        name: Of its report, or of its folder in the work folder.
        arguments: After ``gkt``.
        suffixes: Of the files of its report; empty if it writes a folder that others need.
        missing: Programs and modules that it needs and this machine lacks.
    """

    name: str
    arguments: tuple[str, ...]
    suffixes: tuple[str, ...] = SUFFIXES
    missing: tuple[str, ...] = ()


def steps(options: AllOptions) -> list[Step]:
    """List what is measured: first what the plan is made from, then the rest of the registry."""

    def profile(name: str, *arguments: str, report: str = "") -> Step:
        made = measurement(name)
        quick = made.quick if options.is_quick else ()
        suffixes = SUFFIXES if made.plots else SUFFIXES[:-1]
        arguments = ("profile", name, *arguments, *quick)
        return Step(report or name, arguments, suffixes, missing=tuple(made.missing()))

    def folder(name: str, *arguments: str) -> Step:
        return Step(name, arguments, suffixes=())

    work, threaded = options.work_dir, ("--threads", str(options.threads))
    demo, other, edge_file = (str(work / name) for name in ("demo", "other-demo", "edge-demo.json"))
    artifacts = ("--artifacts", str(work / "artifacts"), "--pin", *threaded, "--sustained-seconds", "60")
    # What a device reaches alone is no part of what is measured here.
    alone = ("--alone-rounds", "1")
    short = _QUICK_DEMO if options.is_quick else ()
    on_demo = profile("edge", "--artifacts", f"{demo}/artifacts", "--sustained-seconds", "60")
    processes = str(min(4, max(2, os.cpu_count() or 1)))
    other_demo = ("--seed", "1", "--clients", "2", "--rounds", "4")
    plan = ("plan", "--devices", "1e6", "--samples", "200", "--image-size", "16")
    size = "16" if options.is_quick else "32"
    chosen = [
        folder("artifacts", "export", "--num-classes", "10", "--image-size", size),
        profile("compare", "--pin", *threaded),
        profile("compare", "--num-classes", "100", "--pin", *threaded, report="compare-100-classes"),
        profile("engines", *threaded),
        profile("edge", *artifacts, "--engine", "portable"),
        profile("edge", *artifacts, "--engine", "ort-training", report="edge-ort-training"),
        profile("simulation", *threaded),
        folder("demo", "demo", "--meter-wire", *alone, *short),
        profile("traffic", "--demo-dir", demo),
        profile("privacy", "--dataset", options.dataset),
        # Other devices, samples and rounds than those that the plan's constants come from.
        folder("other-demo", "demo", "--limit", "900", "--server-epochs", "3", *alone, *short, *other_demo),
        folder("edge-demo", *on_demo.arguments, "--processes", processes, "--out", edge_file),
        Step("plan", (*plan, "--edge", edge_file, "--run", demo, "--validate", other)),
    ]
    names = {step.name for step in chosen}
    return [*chosen, *(profile(name) for name in MEASUREMENTS if name not in names)]


@click.command("all", cls=Command, example="gkt profile all --out-dir results")
@dataclass_options(AllOptions)
@click.option("--json", "as_json", is_flag=True, help="Print the files of the reports to stdout.")
@click.option("--list", "is_listed", is_flag=True, help="List the commands, and run none.")
def measure_all(*, options: AllOptions, as_json: bool, is_listed: bool) -> None:
    """Measure everything here, one measurement after the other, in about two hours.

    Leave the machine alone meanwhile. Whatever is there already is kept: after a stop, the same command goes
    on; remove a report to measure it again. What needs something that is not installed is left out by name.
    """
    chosen = steps(options)
    names = [step.name for step in chosen]
    unknown = sorted(set(options.only) - set(names))
    if unknown:
        raise InputError(f"unknown step {', '.join(unknown)}, expected some of {', '.join(names)}")
    if is_listed:
        for step in chosen:
            click.echo("gkt " + " ".join([*step.arguments, *_outputs(step, options)]))
        return
    _run([step for step in chosen if not options.only or step.name in options.only], options)
    if as_json:
        reports = [step.name for step in chosen if step.suffixes and is_done(step, options)]
        emit_json({name: str(options.out_dir / f"{name}.json") for name in reports})


def _run(chosen: Iterable[Step], options: AllOptions) -> None:
    with needs("all"):
        # A device has no psutil, and measures with gkt profile edge alone.
        from profiling.frame.processes import ProcessGroup  # noqa: PLC0415
    said_on = console(stderr=True)

    def say(line: str) -> None:
        said_on.print(line, markup=False, soft_wrap=True)

    failed: list[str] = []
    with ProcessGroup() as processes:
        for step in chosen:
            if is_done(step, options):
                say(f"{step.name}: there already")
                continue
            if step.missing:
                say(f"{step.name}: left out, {' and '.join(step.missing)} not installed")
                continue
            say(f"{step.name}: gkt {' '.join(step.arguments)}")
            if not step.suffixes:
                # What an earlier call left unfinished; no command writes into it.
                shutil.rmtree(options.work_dir / step.name, ignore_errors=True)
            log = options.work_dir / "logs" / f"{step.name}.log"
            try:
                processes.run(step.name, [*step.arguments, *_outputs(step, options)], log=log)
            except RunFailedError as error:
                if not (step.suffixes and is_done(step, options)):
                    raise
                # It measured, and its report says what must not be: no reason to leave out the others.
                say(f"{step.name}: {error}")
                failed.append(step.name)
    # A verdict on a quick run is one on its quickness.
    if failed and not options.is_quick:
        raise RunFailedError(f"the reports say what must not be: {', '.join(failed)}")


def is_done(step: Step, options: AllOptions) -> bool:
    """Tell whether a step's files are there and whole."""
    if step.suffixes:
        try:
            read_document(options.out_dir / f"{step.name}.json")
        except InputError:
            return False
        return all((options.out_dir / f"{step.name}{suffix}").is_file() for suffix in step.suffixes)
    folder = options.work_dir / step.name
    if step.arguments[0] == "demo":
        return (folder / "report.json").is_file()
    return (folder / "manifest.json").is_file() or folder.with_suffix(".json").is_file()


def _outputs(step: Step, options: AllOptions) -> Sequence[str]:
    if step.suffixes:
        files = (options.out_dir / f"{step.name}{suffix}" for suffix in step.suffixes)
        return [part for file in files for part in ("--out", str(file))]
    return [] if "--out" in step.arguments else ["--out", str(options.work_dir / step.name)]
