"""What a person sees while a demo runs: each step and round, and a bar with phase, throughput and bytes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.progress import TaskID

from gkt_core.wire.protocol import RoundMetrics, RunStatus
from profiling.frame.live import Display
from profiling.frame.units import format_bytes

# After so many seconds without a line a step says that it goes on, then after twice as many, and so on.
_SILENT_SECONDS = 10.0


class LiveDisplay(Display):
    """Shows the steps of a demo, and its run by what the server says of it."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: TaskID | None = None
        self._shown_rounds = 0

    @contextlib.contextmanager
    def step(self, line: str) -> Iterator[Callable[[], None]]:
        """Say that a step begins, and show for as long as the block takes that it goes on.

        Yields:
            What is called again and again meanwhile.
        """
        self.say(line)
        bar = self.bars.add_task("", total=None, detail=line)
        began = last = time.monotonic()
        silence = _SILENT_SECONDS

        def goes_on() -> None:
            nonlocal last, silence
            now = time.monotonic()
            if self.bars.disable and now - last >= silence:
                self.say(f"still {line} ({now - began:.0f} s)")
                last, silence = now, 2 * silence

        try:
            yield goes_on
        finally:
            self.bars.remove_task(bar)

    def status(self, status: RunStatus) -> None:
        """Show how far the run is."""
        for finished in status.finished_rounds:
            if finished.round_num > self._shown_rounds:
                self.say(_round_line(finished, status.rounds))
                self._shown_rounds = finished.round_num
        if self._bar is None:
            self._bar = self.bars.add_task("", total=float(status.rounds), detail="")
        self.bars.update(
            self._bar,
            description=f"round {status.round_num}/{status.rounds}",
            completed=self._shown_rounds + _fraction(status),
            detail=_phase_line(status),
        )

    def finish(self) -> None:
        """Take the bar away: the rounds are over."""
        if self._bar is not None:
            self.bars.remove_task(self._bar)
            self._bar = None


def _fraction(status: RunStatus) -> float:
    """Tell how far the current round is, a third of it being the devices' part."""
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
