"""One call of ``gkt reproduce``: which runs it wants, running them, and the reports."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import click
import matplotlib as mpl

from gkt_core.errors import ConfigError
from profiling.experiments.reproduce.cells import SERVER_OF, Cell, Experiment, Job
from profiling.experiments.reproduce.counted import fig4, fig5
from profiling.experiments.reproduce.live import ReproductionDisplay
from profiling.experiments.reproduce.options import ReproduceOptions
from profiling.experiments.reproduce.report import counted_report, table_figures, table_report, write_report
from profiling.experiments.reproduce.runs import RunFolder, run_missing
from profiling.experiments.reproduce.summary import collect
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.plot_style import STYLE

_COUNTED = {"fig4": fig4, "fig5": fig5}


class Session:
    """Runs and reports in one folder, as the options say."""

    def __init__(self, options: ReproduceOptions) -> None:
        self._options, self._scale = options, options.scale
        self._folder = RunFolder(options.out, options.scale)

    def missing_runs(self, experiment: Experiment, missing_data: Mapping[str, str]) -> list[Job]:
        """Runs that the experiment needs and that are not there; first seeds first.

        Raises:
            ConfigError: No cell is selected.
        """
        cells = [cell for cell in experiment.cells if self._is_wanted(cell)]
        if not cells:
            rows = ", ".join(sorted({f"{cell.row} {cell.column}" for cell in experiment.cells})[:4])
            raise ConfigError(f"{experiment.name} has no such cell; it has {rows} and others")
        wanted = [
            Job(cell.spec, seed)
            for seed in self._options.seeds
            for cell in cells
            if cell.spec.dataset not in missing_data
        ]
        return [job for job in dict.fromkeys(wanted) if self._folder.load(job) is None]

    def print_plan(self, jobs: Sequence[Job]) -> None:
        """Print each missing run's name, how far it is, the hours it takes yet, and its command."""
        rounds, total, is_whole = int(self._scale.common["rounds"]), 0.0, True
        for job in jobs:
            done, seconds = self._folder.num_rounds(job), self._folder.seconds_left(job)
            state = f"{done} of {rounds} rounds" if done else "not begun"
            left = (
                "hours unknown until a round is done"
                if seconds is None
                else f"{seconds / 3600:.2f} hours left"
            )
            click.echo(f"{job.name}: {state}, {left}")
            click.echo("  " + shlex.join(["gkt", *self._folder.command(job, self._options)]))
            total, is_whole = total + (seconds or 0.0), is_whole and seconds is not None
        count = "1 run is" if len(jobs) == 1 else f"{len(jobs)} runs are"
        hours = f"{'' if is_whole else 'at least '}{total / 3600:.2f} hours"
        click.echo(f"{count} missing: {hours} one after another, {self._options.jobs} at a time", err=True)

    def _is_wanted(self, cell: Cell) -> bool:
        large, text = self._options.large_network, self._options.only
        if large and cell.spec.server_network != SERVER_OF[large]:
            return False
        return text is None or text.lower() in f"{cell.row} {cell.column}".lower()

    def run(self, experiment: Experiment, missing_data: Mapping[str, str]) -> None:
        """Run what is missing."""
        jobs = self.missing_runs(experiment, missing_data)
        if not jobs:
            return
        with ReproductionDisplay(len(jobs), int(self._scale.common["rounds"])) as display:
            run_missing(self._folder, jobs, self._options, display)

    def report(self, experiment: Experiment, missing_data: Mapping[str, str], command: str) -> dict[str, Any]:
        """Write what is there beside the paper's numbers."""
        results = collect(experiment, self._folder, self._options.seeds, missing_data)
        report = table_report(experiment, results, self._scale, command)
        write_report(self._options.out, report, table_figures(experiment, results))
        return report

    def count(self, name: str, command: str) -> dict[str, Any]:
        """Write a figure that is counted rather than trained."""
        counted = _COUNTED[name]()
        report = counted_report(counted, self._scale, command)
        shown = [Bar(bar.label, bar.value, note=f"{bar.value:,.1f}") for bar in counted.bars]
        with mpl.rc_context(STYLE):
            figure = bar_figure(counted.title, counted.bars[0].unit, shown)
        write_report(self._options.out, report, {name: figure})
        return report
