"""What a person sees while a demo runs: a live display on a terminal, short plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gkt_core.wire.protocol import RoundMetrics, RunStatus
from profiling.frame.units import format_bytes

__all__ = ["LiveDisplay", "format_bytes"]


class LiveDisplay:
    """Shows steps, rounds, phases, throughput, bytes and accuracy on stderr; stdout stays free."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._round_bar: TaskID | None = None
        self._shown_rounds = 0
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )

    def __enter__(self) -> LiveDisplay:
        """Begin to show."""
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._progress is not None:
            self._progress.stop()

    def step(self, line: str) -> None:
        """A step of the demo begins."""
        self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, soft_wrap=True)

    def status(self, status: RunStatus) -> None:
        """The run moved on."""
        for finished in status.finished_rounds[self._shown_rounds :]:
            self.step(_round_line(finished, status.rounds))
        self._shown_rounds = len(status.finished_rounds)
        if self._progress is None:
            return
        if self._round_bar is None:
            self._round_bar = self._progress.add_task("", total=float(status.rounds), detail="")
        self._progress.update(
            self._round_bar,
            description=f"round {status.round_num}/{status.rounds}",
            completed=len(status.finished_rounds) + _fraction(status),
            detail=_phase_line(status),
        )

    def finish(self) -> None:
        """The rounds are over."""
        if self._progress is not None and self._round_bar is not None:
            self._progress.remove_task(self._round_bar)
            self._round_bar = None


def _fraction(status: RunStatus) -> float:
    """How far the current round is, a third of it being the devices' part."""
    if status.phase == "collecting":
        return 0.3 * len(status.reported) / max(1, status.num_clients)
    if status.phase == "training" and status.trainer is not None:
        return 0.3 + 0.7 * (status.trainer.epoch - 1) / status.trainer.epochs
    return 0.3 if status.phase in ("ready", "training") else 0.0


def _phase_line(status: RunStatus) -> str:
    sent = format_bytes(sum(n for kind, n in status.traffic.items() if kind.startswith("upload/")))
    last = status.finished_rounds[-1].validation_accuracy if status.finished_rounds else None
    accuracy = "" if last is None else f", validation {last:.1%}"
    if status.phase == "training" and status.trainer is not None:
        trainer = status.trainer
        return (
            f"server trains: epoch {trainer.epoch}/{trainer.epochs}, loss {trainer.loss:.3f}, "
            f"{trainer.samples_per_second:.0f} samples/s; {sent} sent{accuracy}"
        )
    if status.phase == "collecting":
        done = f"{len(status.reported)}/{status.num_clients} reported"
        return f"devices train and upload: {done}; {sent} sent{accuracy}"
    return f"{status.phase}; {sent} sent{accuracy}"


def _round_line(finished: RoundMetrics, rounds: int) -> str:
    return (
        f"round {finished.round_num}/{rounds}: validation accuracy {finished.validation_accuracy:.3f}, "
        f"devices {finished.edge_images_per_second:.0f} images/s ({finished.edge_seconds:.1f} s), "
        f"server {finished.server_samples_per_second:.0f} samples/s ({finished.server_seconds:.1f} s), "
        f"{format_bytes(finished.upload_bytes)} up, {format_bytes(finished.download_bytes)} down"
    )
