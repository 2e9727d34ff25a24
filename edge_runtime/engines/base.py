"""One interface for every engine that can train on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.engines.choice import choose_engine
from gkt_core.bundle.manifest import PORTABLE, Bundle
from gkt_core.rounds.engine import TrainingEngine


class TrainingBackend(TrainingEngine, Protocol):
    """An engine that can also save its state and give its weights."""

    @property
    def name(self) -> str:
        """Name of the engine, for logs and for the server."""
        ...

    def save(self, path: Path) -> None:
        """Write parameters, running statistics and optimizer state, by atomic rename."""
        ...

    def gradients(self) -> dict[str, NDArray[np.float32]]:
        """Copy the gradients of the last step, by parameter name; an L2 penalty included."""
        ...

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Copy all parameters and running statistics, by their PyTorch names."""
        ...


def open_backend(
    bundle: Bundle,
    *,
    checkpoint: Path | None,
    num_threads: int,
    learning_rate: float,
    engine: str | None = None,
) -> TrainingBackend:
    """Open an engine on a bundle.

    Args:
        bundle: A verified artifact bundle.
        checkpoint: State to go on from; the bundle's own initial state by default.
        num_threads: CPU threads of each operator.
        learning_rate: Of the optimizer; ONNX Runtime does not keep it in a checkpoint.
        engine: ``portable`` or ``ort_training``; by default the fastest that the bundle has files for and
            that is installed.

    Raises:
        ArtifactError: The files do not load.
        MissingExtraError: ONNX Runtime is not installed.
        PackageConflictError: Two distributions of it are installed.
    """
    from edge_runtime.engines.ort_training import OrtTrainingBackend  # noqa: PLC0415 - loads the engine
    from edge_runtime.engines.portable import PortableBackend  # noqa: PLC0415

    chosen = choose_engine(bundle.manifest, engine)
    backend = PortableBackend if chosen == PORTABLE else OrtTrainingBackend
    opened: TrainingBackend = backend(
        bundle, checkpoint=checkpoint, num_threads=num_threads, learning_rate=learning_rate
    )
    return opened
