"""Tell the store and the log how a step of the server goes, and whose uploads it is on."""

from __future__ import annotations

import os
import time

from gkt_core.algorithms import Evaluation, ServerProgress, ServerUpdate
from gkt_core.wire.protocol import TrainerProgress
from server_app.heartbeat import Heartbeat
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import RunState
from server_app.run_folder import RunContext
from server_app.store import RunStore, edge_metrics, upload_metrics
from server_app.trainer.lease import Lease

_PROGRESS_SECONDS = 0.5


class ServerGone(Exception):
    """Raised when the process that started this one has ended."""


class ProgressReporter:
    """Tells the store how training goes, at most twice a second."""

    def __init__(
        self,
        run: RunContext,
        round_num: int,
        parent_pid: int | None,
        lease: Lease,
        heartbeat: Heartbeat,
        num_samples: int,
    ) -> None:
        self._heartbeat, self._num_samples = heartbeat, num_samples
        self._run, self._round_num, self._parent_pid, self._lease = run, round_num, parent_pid, lease
        self._last = 0.0

    def __call__(self, progress: ServerProgress) -> None:
        """Report, after a batch, and end the training when the server has ended."""
        check_parent(self._parent_pid)
        is_last = progress.epoch == progress.epochs
        # All samples may be passed forward once more behind the last batch.
        rest = 2 * self._num_samples / max(progress.samples_per_second, 1e-3) if is_last else 0.0
        self._heartbeat.batch(f"training round {self._round_num}, epoch {progress.epoch}", rest)
        now = time.monotonic()
        if now - self._last < _PROGRESS_SECONDS:
            return
        self._last = now
        self._lease.keep()
        self._run.store.report_progress(
            TrainerProgress(
                self._round_num, progress.epoch, progress.epochs, progress.samples_per_second, progress.loss
            )
        )


def waiting_words(state: RunState) -> str:
    """What a trainer that has nothing to train says of itself."""
    return f"waiting: the run is {state.halt}" if state.halt else "waiting for devices"


def describe_step(state: RunState) -> str:
    """Name the devices of a step and how far ahead they are; an empty string where all do the same round."""
    ahead = rounds_of(state).staleness(state)
    members = [
        f"{name} in its round {number}, {ahead.get(name, 0)} ahead"
        for name, number in rounds_of(state).parts(state).items()
    ]
    return f" of {'; '.join(members)}" if ahead else ""


def step_metrics(
    store: RunStore, state: RunState, update: ServerUpdate, evaluation: Evaluation
) -> dict[str, float]:
    """What a step of the server gave, and what its devices had reported.

    Without rounds, how many rounds' worth of uploads are done, too.
    """
    rounds = rounds_of(state)
    own, ahead = rounds.parts(state), rounds.staleness(state)
    metrics = {
        "train_loss": update.loss,
        "train_accuracy": update.accuracy,
        "validation_loss": evaluation.loss,
        "validation_accuracy": evaluation.accuracy,
        "samples_per_second": update.samples_per_second,
        **edge_metrics(store.past.reports(own).values()),
    }
    if state.mode == "async":
        metrics |= upload_metrics(store, own)
        total = sum({**dict(state.done), **own}.values())
        metrics["full_rounds"] = float(total // max(1, len(state.clients)))
        metrics["max_staleness"] = float(max((ahead.get(name, 0) for name in own), default=0))
    return metrics


def check_parent(parent_pid: int | None) -> None:
    """Refuse to go on without the server.

    Raises:
        ServerGone: It has ended.
    """
    if parent_pid is not None and os.getppid() != parent_pid:
        raise ServerGone
