"""One call of ``gkt reproduce``: which runs it wants, running them, and the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

from gkt_core.errors import ConfigError
from profiling.experiments.reproduce.counted import fig4, fig5
from profiling.experiments.reproduce.experiments import SERVER_OF, Cell, Experiment
from profiling.experiments.reproduce.live import ReproductionDisplay
from profiling.experiments.reproduce.report import counted_report, table_figures, table_report, write_report
from profiling.experiments.reproduce.runs import Execution, Job, RunFolder, run_missing
from profiling.experiments.reproduce.scales import Scale
from profiling.experiments.reproduce.summary import collect
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.plot_style import STYLE

_COUNTED = {"fig4": fig4, "fig5": fig5}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which cells of a table are run; the report shows all of them.

    Attributes:
        text: What the row or the column must hold, or None.
        large_network: ``resnet56`` or ``resnet110``, or None for both.
    """

    text: str | None = None
    large_network: str | None = None

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is wanted."""
        if self.large_network and cell.spec.server_network != SERVER_OF[self.large_network]:
            return False
        return self.text is None or self.text.lower() in f"{cell.row} {cell.column}".lower()


class Session:
    """Runs and reports in one folder.

    Args:
        out: The folder.
        scale: How large.
        seeds: Seeds of each cell.
        execution: How runs are computed.
        selection: Which cells are run.
    """

    def __init__(
        self, out: Path, scale: Scale, seeds: Sequence[int], execution: Execution, selection: Selection
    ) -> None:
        self._out, self._scale, self._seeds = out, scale, seeds
        self._execution, self._selection = execution, selection
        self._folder = RunFolder(out, scale)

    def missing_runs(self, experiment: Experiment, missing_data: Mapping[str, str]) -> list[Job]:
        """Runs that the experiment needs and that are not there; first seeds first.

        Raises:
            ConfigError: No cell is selected.
        """
        cells = [cell for cell in experiment.cells if self._selection.holds(cell)]
        if not cells:
            rows = ", ".join(sorted({f"{cell.row} {cell.column}" for cell in experiment.cells})[:4])
            raise ConfigError(f"{experiment.name} has no such cell; it has {rows} and others")
        wanted = [
            Job(cell.spec, seed)
            for seed in self._seeds
            for cell in cells
            if cell.spec.dataset not in missing_data
        ]
        return [job for job in dict.fromkeys(wanted) if self._folder.load(job) is None]

    def run(self, experiment: Experiment, missing_data: Mapping[str, str]) -> None:
        """Run what is missing."""
        jobs = self.missing_runs(experiment, missing_data)
        if not jobs:
            return
        with ReproductionDisplay(len(jobs), int(self._scale.common["rounds"])) as display:
            run_missing(
                self._folder,
                jobs,
                self._execution,
                on_start=display.start,
                on_progress=display.progress,
                on_end=display.end,
            )

    def report(self, experiment: Experiment, missing_data: Mapping[str, str], command: str) -> dict[str, Any]:
        """Write what is there beside the paper's numbers."""
        results = collect(experiment, self._folder, self._seeds, missing_data)
        report = table_report(experiment, results, self._scale, command)
        write_report(self._out, report, table_figures(experiment, results))
        return report

    def count(self, name: str, command: str) -> dict[str, Any]:
        """Write a figure that is counted rather than trained."""
        counted = _COUNTED[name]()
        report = counted_report(counted, self._scale, command)
        shown = [Bar(bar.label, bar.value, note=f"{bar.value:,.1f}") for bar in counted.bars]
        with mpl.rc_context(STYLE):
            figure = bar_figure(counted.title, counted.bars[0].unit, shown)
        write_report(self._out, report, {name: figure})
        return report
