"""What the trainer says while it works, and what it looks out for."""

from __future__ import annotations

import os
import time

import numpy as np

from gkt_core.algorithms import Evaluation, ServerProgress, ServerUpdate
from gkt_core.errors import GKTError
from gkt_core.protocol import TrainerProgress
from server_app.lease import Lease
from server_app.run_folder import RunContext
from server_app.run_state import RunState
from server_app.state_machine import parts, staleness
from server_app.status import part_metrics

_PROGRESS_SECONDS = 0.5


class ServerGone(Exception):
    """The process that started this one has ended."""


class ProgressReporter:
    """Tells the store how training goes, at most twice a second.

    Args:
        run: The run.
        round_num: What is trained on.
        parent_pid: Whose end to notice.
        lease: Kept meanwhile.
    """

    def __init__(self, run: RunContext, round_num: int, parent_pid: int | None, lease: Lease) -> None:
        self._run, self._round_num, self._parent_pid, self._lease = run, round_num, parent_pid, lease
        self._last = 0.0

    def __call__(self, progress: ServerProgress) -> None:
        """Hear of a batch.

        Raises:
            ServerGone: The process that started this one has ended.
            LeaseLost: Another trainer has taken over.
        """
        check_parent(self._parent_pid)
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


def describe_step(state: RunState) -> str:
    """Who is in a step of the server, and how far ahead; nothing for rounds."""
    ahead = staleness(state)
    found = [
        f"{name} in its round {number}, {ahead.get(name, 0)} ahead" for name, number in parts(state).items()
    ]
    return f" of {'; '.join(found)}" if ahead else ""


def step_metrics(state: RunState) -> dict[str, float]:
    """What a step of the server was, and how many rounds' worth of uploads are done; nothing for rounds."""
    if state.mode == "sync":
        return {}
    own, ahead = parts(state), staleness(state)
    total = sum({**dict(state.done), **own}.values())
    return {
        **part_metrics(own),
        "full_rounds": float(total // max(1, len(state.clients))),
        "max_staleness": float(max((ahead.get(name, 0) for name in own), default=0)),
    }


def check_parent(parent_pid: int | None) -> None:
    """Notice that the process that started this one has ended.

    Raises:
        ServerGone: It has.
    """
    if parent_pid is not None and os.getppid() != parent_pid:
        raise ServerGone


def check_finite(round_num: int, update: ServerUpdate, evaluation: Evaluation) -> None:
    """Refuse a network that diverged in the last update.

    Raises:
        GKTError: It gives NaN or infinity.
    """
    # A loss is computed before its update: the last update shows only in what comes after it.
    if not (np.isfinite(update.server_logits).all() and np.isfinite(evaluation.loss)):
        raise GKTError(
            f"the server network gives NaN or infinity after round {round_num}: "
            "training diverged, lower server_lr"
        )
