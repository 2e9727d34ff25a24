"""What a person sees while a simulation runs: a line a round, and a bar with phase and throughput."""

from __future__ import annotations

import time

from gkt_core.algorithms.base import RoundResult
from profiling.frame.live import Display
from profiling.frame.units import format_bytes

# Between two changes of a bar: no eye is faster, and a step of a small network is.
_SHOWN_SECONDS = 0.2


class SimulationDisplay(Display):
    """Shows a simulation by what its runner says of it."""

    def __init__(self, algorithm: str, rounds: int) -> None:
        super().__init__()
        self._rounds = rounds
        self._phase, self._num, self._started, self._shown = "", 0, 0.0, 0.0
        self._bar = self.bars.add_task(algorithm, total=float(rounds), detail="")

    def samples(self, phase: str, num: int) -> None:
        """Count samples that were trained on."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._num, self._started = phase, 0, now
        self._num += num
        if now - self._shown > _SHOWN_SECONDS:
            self._shown = now
            rate = self._num / max(1e-6, now - self._started)
            done = self.bars.tasks[0].completed
            self.bars.update(
                self._bar, detail=f"{done:.0f}/{self._rounds} rounds  {phase}: {rate:.0f} samples/s"
            )

    def round(self, round_num: int, result: RoundResult) -> None:
        """Say what a round has brought."""
        self.bars.update(self._bar, completed=float(round_num))
        self.say(
            f"round {round_num}/{self._rounds}: validation accuracy {result.validation_accuracy:.3f}, "
            f"training loss {result.train_loss:.3f}, "
            f"{format_bytes(result.upload_bytes)} up, {format_bytes(result.download_bytes)} down"
        )
