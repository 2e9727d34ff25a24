"""What a person sees while a simulation runs."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gkt_core.algorithms.base import RoundResult
from profiling.frame.units import format_bytes


class SimulationDisplay:
    """A bar of rounds with phase and throughput on a terminal, one line a round elsewhere."""

    def __init__(self, algorithm: str, rounds: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._rounds = rounds
        self._phase, self._num, self._started, self._shown = "", 0, 0.0, 0.0
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.completed:.0f}/{task.total:.0f} rounds"),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(algorithm, total=float(rounds), detail="")

    def __enter__(self) -> SimulationDisplay:
        """Begin to show."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def samples(self, phase: str, num: int) -> None:
        """So many samples were trained on."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._num, self._started = phase, 0, now
        self._num += num
        if self._bar is not None and now - self._shown > 0.2:
            self._shown = now
            rate = self._num / max(1e-6, now - self._started)
            self._bar.update(self._task, detail=f"{phase}: {rate:.0f} samples/s")

    def round(self, round_num: int, result: RoundResult) -> None:
        """A round ended."""
        if self._bar is not None:
            self._bar.update(self._task, completed=float(round_num))
        self._console.print(
            f"{time.strftime('%H:%M:%S')} round {round_num}/{self._rounds}: validation accuracy "
            f"{result.validation_accuracy:.3f}, training loss {result.train_loss:.3f}, "
            f"{format_bytes(result.upload_bytes)} up, {format_bytes(result.download_bytes)} down",
            markup=False,
            soft_wrap=True,
        )
