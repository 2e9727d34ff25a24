"""What several seeds of a cell say together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profiling.experiments.reproduce.cells import Cell, Experiment, Job
from profiling.experiments.reproduce.runs import RunFolder


@dataclass(frozen=True, slots=True)
class CellResult:
    """A cell with what its runs gave.

    Attributes:
        cell: What was repeated.
        runs: Finished runs by seed.
        not_run: Why there is none, or some are missing; empty if all are there.
    """

    cell: Cell
    runs: Mapping[int, Mapping[str, Any]]
    not_run: str

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies in percent, by seed."""
        return [100 * self.runs[seed]["result"]["test_accuracy"] for seed in sorted(self.runs)]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-compatible values; accuracies in percent, None where nothing was run."""
        accuracies = self.accuracies
        results = [self.runs[seed]["result"] for seed in sorted(self.runs)]
        return {
            "row": self.cell.row,
            "column": self.cell.column,
            "paper": self.cell.paper,
            "spec": self.cell.spec.to_dict(),
            "num_seeds": len(accuracies),
            "seeds": sorted(self.runs),
            "test_accuracies": accuracies,
            "mean_test_accuracy": statistics.fmean(accuracies) if accuracies else None,
            "standard_deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
            "standard_error": standard_error(accuracies),
            "half_interval_95": half_interval(accuracies),
            "mean_validation_accuracy": _mean([100 * result["validation_accuracy"] for result in results]),
            "mean_upload_bytes": _mean([result["upload_bytes"] for result in results]),
            "mean_download_bytes": _mean([result["download_bytes"] for result in results]),
            "mean_training_seconds": _mean([run["training_seconds"] for run in self.runs.values()]),
            "precisions": sorted({run["result"]["config"]["precision"] for run in self.runs.values()}),
            "not_run": self.not_run,
        }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean; None for fewer than two values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def half_interval(values: Sequence[float]) -> float | None:
    """Half the width of the mean's 95 % interval, by Student's t; None for fewer than two values."""
    from scipy.stats import t  # type: ignore[import-untyped] # noqa: PLC0415 - slow to import

    error = standard_error(values)
    return None if error is None else float(t.ppf(0.975, len(values) - 1) * error)


def collect(
    experiment: Experiment, folder: RunFolder, seeds: Sequence[int], missing_data: Mapping[str, str]
) -> list[CellResult]:
    """All cells of an experiment with the runs that are there.

    Args:
        experiment: The table.
        folder: Where runs are kept.
        seeds: Seeds that are wanted.
        missing_data: Datasets that cannot be loaded, and why.
    """
    results = []
    for cell in experiment.cells:
        found = {seed: folder.load(Job(cell.spec, seed)) for seed in seeds}
        runs = {seed: run for seed, run in found.items() if run is not None}
        why = ""
        if len(runs) < len(seeds):
            why = missing_data.get(cell.spec.dataset, "not run" if not runs else "some seeds not run yet")
        results.append(CellResult(cell, runs, why))
    return results
