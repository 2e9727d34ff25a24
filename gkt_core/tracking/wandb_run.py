"""Rounds as the history of a run of Weights & Biases; ``WANDB_MODE=offline`` keeps it on this machine."""

from __future__ import annotations

import uuid
from typing import Any

from gkt_core.errors import needs
from gkt_core.tracking.about import About, Numbers
from gkt_core.tracking.options import Target

with needs("track"):
    import wandb


def open_run(target: Target, about: About, run: str) -> WandbRun:
    """Begin a run of the project, or go on with one."""
    run = run or uuid.uuid4().hex[:16]
    begun = wandb.init(
        project=target.place,
        id=run,
        name=about.name,
        config=dict(about.settings),
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off"),
    )
    return WandbRun(begun, run)


class WandbRun:
    """Writes to one run.

    Args:
        begun: The run, as its library gives it.
        run: Its id.
    """

    def __init__(self, begun: Any, run: str) -> None:
        self._begun, self.run = begun, run

    def write(self, step: int, numbers: Numbers) -> None:
        """Write the numbers of a round."""
        self._begun.log(dict(numbers), step=step)

    def end(self, *, failed: bool) -> None:
        """Say that the run is over."""
        self._begun.finish(exit_code=int(failed))

    def close(self) -> None:
        """Let go of it."""
        self._begun.finish()
