"""Open whichever engine trains on this device, behind one interface."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.engines.choice import choose_engine
from gkt_core.bundle.manifest import PORTABLE, Bundle
from gkt_core.rounds.engine import DeviceEngine


def open_engine(
    bundle: Bundle,
    *,
    checkpoint: Path | None,
    num_threads: int,
    learning_rate: float,
    engine: str | None = None,
) -> DeviceEngine:
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
    from edge_runtime.engines.ort_training import OrtTrainingEngine  # noqa: PLC0415 - loads the engine
    from edge_runtime.engines.portable import PortableEngine  # noqa: PLC0415

    chosen = choose_engine(bundle.manifest, engine)
    kind = PortableEngine if chosen == PORTABLE else OrtTrainingEngine
    opened: DeviceEngine = kind(
        bundle, checkpoint=checkpoint, num_threads=num_threads, learning_rate=learning_rate
    )
    return opened
