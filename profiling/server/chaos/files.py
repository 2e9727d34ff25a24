"""Which files of a run can be damaged so that nothing is lost for good, and how they are damaged."""

from __future__ import annotations

import os
from pathlib import Path

from profiling.server.chaos.strikes import CHECKPOINT, REMOVE, SHARD
from server_app.rounds.state import Phase, RunState
from server_app.run_folder import RunContext, round_blobs


def restorable(run: RunContext, victim: str, state: RunState) -> list[Path]:
    """Files of which the run has the means to get what was in them again.

    Args:
        run: The run; its trainer stands still.
        victim: ``shard`` or ``epoch checkpoint``.
        state: Where it is.
    """
    if victim == SHARD and state.phase in (Phase.COLLECTING, Phase.READY):
        folder = run.folder / "blobs" / round_blobs(state.round_num)
        return sorted(folder.rglob("*.safetensors"))
    if victim == CHECKPOINT and state.phase is Phase.TRAINING and run.epoch_checkpoint_path.exists():
        return [run.epoch_checkpoint_path]
    return []


def spoil(path: Path, kind: str, choice: float) -> None:
    """Remove a file, cut it short, or change one bit of it."""
    if kind == REMOVE:
        path.unlink(missing_ok=True)
        return
    size = path.stat().st_size
    if choice < 0.3:
        os.truncate(path, int(size * choice))
        return
    with path.open("r+b") as stream:
        # Behind the header, among the numbers.
        place = max(0, size - 1 - int(choice * size / 4))
        stream.seek(place)
        value = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([value ^ 4]))
