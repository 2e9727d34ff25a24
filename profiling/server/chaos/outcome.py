"""What a finished run leaves, as hashes, and how two runs differ."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from server_app.run_folder import SERVER_WEIGHTS_BLOB, TEMPLATE_BLOB, RunContext


def run_hashes(run: RunContext, state_dirs: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of the server's last checkpoint and model, and of every device's parameters and model.

    Nothing is left out of the files: none of them holds a time, a process id or a path.

    Args:
        run: A finished run.
        state_dirs: Of its devices.

    Raises:
        OSError: One of the files is not there.
    """
    rounds = run.config.rounds
    files = {
        "server checkpoint": run.checkpoint_path(rounds),
        "server model": run.blobs.local_path(SERVER_WEIGHTS_BLOB),
        "combined template": run.blobs.local_path(TEMPLATE_BLOB),
    }
    for folder in state_dirs:
        files[f"{folder.name} checkpoint"] = folder / f"checkpoint-{rounds:06d}"
        files[f"{folder.name} model"] = folder / "model.onnx"
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def left_over(*folders: Path) -> list[str]:
    """Files that a killed process was writing and nobody has removed since."""
    return sorted(str(path) for folder in folders for path in folder.rglob(".*.tmp"))
