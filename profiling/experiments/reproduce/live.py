"""What a person sees while a reproduction runs."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from profiling.experiments.reproduce.runs import Job


class ReproductionDisplay:
    """A bar for each run that is under way on a terminal, a line a run elsewhere."""

    def __init__(self, num_jobs: int, rounds: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._rounds, self._num_jobs, self._num_done = rounds, num_jobs, 0
        self._lock = threading.Lock()
        self._tasks: dict[Job, TaskID] = {}
        self._bars: Progress | None = None
        if self._console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f} rounds"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )

    def __enter__(self) -> ReproductionDisplay:
        """Begin to show."""
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._bars is not None:
            self._bars.stop()

    def start(self, job: Job) -> None:
        """A run begins or goes on."""
        self._say(f"{job.name}: begins")
        if self._bars is not None:
            self._tasks[job] = self._bars.add_task(job.name, total=float(self._rounds))

    def progress(self, job: Job, num_rounds: int) -> None:
        """So many of its rounds are done; called by the threads that wait for runs."""
        with self._lock:
            if self._bars is not None and job in self._tasks:
                self._bars.update(self._tasks[job], completed=float(num_rounds))

    def end(self, job: Job, run: dict[str, Any]) -> None:
        """A run is done."""
        self._num_done += 1
        result = run["result"]
        self._say(
            f"{job.name}: test accuracy {100 * result['test_accuracy']:.2f} % after "
            f"{run['training_seconds'] / 60:.1f} minutes ({self._num_done} of {self._num_jobs})"
        )
        with self._lock:
            if self._bars is not None:
                self._bars.remove_task(self._tasks.pop(job))

    def _say(self, line: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, soft_wrap=True)
