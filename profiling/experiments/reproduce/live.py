"""What a person sees while a reproduction runs: a line when a run begins or ends, a bar a run under way."""

from __future__ import annotations

from typing import Any

from rich.progress import TaskID

from profiling.experiments.reproduce.cells import Job
from profiling.frame.live import Display


class ReproductionDisplay(Display):
    """Shows several runs at a time; the threads that wait for them may call it."""

    def __init__(self, num_jobs: int, rounds: int) -> None:
        super().__init__()
        self._rounds, self._num_jobs, self._num_done = rounds, num_jobs, 0
        self._tasks: dict[Job, TaskID] = {}

    def start(self, job: Job) -> None:
        """Show a run that begins or goes on."""
        self.say(f"{job.name}: begins")
        self._tasks[job] = self.bars.add_task(job.name, total=float(self._rounds), detail="")

    def progress(self, job: Job, num_rounds: int) -> None:
        """Show how many of its rounds are done."""
        # From another thread: it may have begun before it was announced.
        if job in self._tasks:
            detail = f"{num_rounds}/{self._rounds} rounds"
            self.bars.update(self._tasks[job], completed=float(num_rounds), detail=detail)

    def end(self, job: Job, run: dict[str, Any]) -> None:
        """Say what a run has brought."""
        self._num_done += 1
        self.say(
            f"{job.name}: test accuracy {100 * run['result']['test_accuracy']:.2f} % after "
            f"{run['training_seconds'] / 60:.1f} minutes ({self._num_done} of {self._num_jobs})"
        )
        self.bars.remove_task(self._tasks.pop(job))
