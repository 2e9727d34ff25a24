"""Carry out the strikes that a run survives without a trace: afterwards it has to leave the same bytes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psutil

from gkt_core.wire.protocol import TrainerProgress
from profiling.frame.processes import Child
from profiling.server.chaos.clock import MovableClock
from profiling.server.chaos.disk import OwnDisk
from profiling.server.chaos.files import restorable, spoil
from profiling.server.chaos.run import TRAINER_MODULE, SupervisedRun
from profiling.server.chaos.strikes import (
    CHECKPOINT,
    CLOCK,
    FARTHEST_CLOCK_SECONDS,
    FILL,
    KILL,
    SERVER,
    STOP,
    TRAINER,
    Strike,
    share_done,
)
from server_app.rounds.state import Phase, RunState


@dataclass(frozen=True, slots=True)
class Happened:
    """A strike that took place.

    Attributes:
        seconds: Since the run began.
        kind: As of :class:`profiling.server.chaos.strikes.Strike`.
        victim: Which process or file.
        share_done: How much of the run was done, 0..1.
        phase: What the run waited for.
        round_num: Its round.
        epoch: The trainer's, 0 if it had not said.
    """

    seconds: float
    kind: str
    victim: str
    share_done: float
    phase: str
    round_num: int
    epoch: int


class Disturbance:
    """Lets strikes befall a run, one after another.

    Args:
        supervised: The run.
        strikes: By ascending moment.
        clock: Of its processes.
        disk: That its folders lie on; None where strikes fill none.
        announce: Takes a line for the person who watches.

    Attributes:
        happened: What took place.
    """

    def __init__(
        self,
        supervised: SupervisedRun,
        strikes: Sequence[Strike],
        clock: MovableClock,
        disk: OwnDisk | None,
        announce: Callable[[str], None],
    ) -> None:
        self._supervised, self._clock, self._disk, self._announce = supervised, clock, disk, announce
        self._strikes, self._due = list(strikes), list[tuple[float, Strike]]()
        self.happened: list[Happened] = []

    def next(self) -> None:
        """Carry out a strike whose moment has come, the first of them that can be done just now."""
        if not self._strikes and not self._due:
            return
        run = self._supervised.run
        state, progress = run.store.state(), run.store.progress()[0]
        done, now = share_done(state, progress), time.monotonic()
        while self._strikes and done >= self._strikes[0].at:
            strike = self._strikes.pop(0)
            self._due.append((now + strike.delay_seconds, strike))
        for entry in [each for each in self._due if each[0] <= now]:
            seconds, victim = self._supervised.seconds, self._strike(entry[1])
            if victim:
                self._due.remove(entry)
                self._note(Happened(seconds, entry[1].kind, victim, done, *_place(state, progress)))
                return

    def _note(self, happened: Happened) -> None:
        self.happened.append(happened)
        self._announce(
            f"{happened.seconds:6.1f} s: {happened.kind} {happened.victim}, {happened.phase} in round "
            f"{happened.round_num}" + (f", epoch {happened.epoch}" if happened.epoch else "")
        )

    def _strike(self, strike: Strike) -> str:
        """Do it, and say to what; an empty string if there is nothing of the kind just now."""
        if strike.kind == KILL:
            return self._kill(strike)
        if strike.kind == STOP:
            return self._stop(strike)
        if strike.kind == FILL:
            return self._fill(strike)
        if strike.kind == CLOCK:
            self._clock.move((2 * strike.choice - 1) * FARTHEST_CLOCK_SECONDS)
            return "clock"
        return self._spoil(strike)

    def _device(self, choice: float) -> Child | None:
        running = [device for device in self._supervised.devices if device.exit_code is None]
        return running[int(choice * len(running))] if running else None

    def _kill(self, strike: Strike) -> str:
        if strike.victim == TRAINER:
            trainer = self._supervised.server.own_child(TRAINER_MODULE)
            if trainer is None:
                return ""
            # Its own supervisor is the server.
            trainer.kill()
            return TRAINER
        server = self._supervised.server
        victim = server if strike.victim == SERVER else self._device(strike.choice)
        if victim is None:
            return ""
        victim.kill()
        victim.start()
        return victim.name

    def _stop(self, strike: Strike) -> str:
        if strike.victim == TRAINER:
            process, name = self._supervised.server.own_child(TRAINER_MODULE), TRAINER
        else:
            server = self._supervised.server
            child = server if strike.victim == SERVER else self._device(strike.choice)
            process, name = (None, "") if child is None else (psutil.Process(child.process.pid), child.name)
        if process is None:
            return ""
        with stopped(process):
            time.sleep(strike.hold_seconds)
        return name

    def _fill(self, strike: Strike) -> str:
        if self._disk is None:
            return ""
        self._supervised.disk_was_full()
        self._disk.fill()
        try:
            time.sleep(strike.hold_seconds)
        finally:
            self._disk.empty()
        return "disk"

    def _spoil(self, strike: Strike) -> str:
        trainer, run = self._supervised.server.own_child(TRAINER_MODULE), self._supervised.run
        if trainer is None:
            return ""
        # Nobody looks at a file while it changes, and what is being trained on has been looked at.
        with stopped(trainer):
            files = restorable(run, strike.victim, run.store.state())
            if not files:
                return ""
            path = files[int(strike.choice * len(files))]
            spoil(path, strike.kind, strike.choice)
            if strike.victim == CHECKPOINT:
                # It is read by the next one only.
                trainer.kill()
        return strike.victim


def _place(state: RunState, progress: TrainerProgress | None) -> tuple[str, int, int]:
    is_training = progress is not None and state.phase is Phase.TRAINING
    return str(state.phase), state.round_num, progress.epoch if progress and is_training else 0


@contextlib.contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """Let a process stand still while the block runs, if it is there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.suspend()
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
