"""Which engine trains: one that the bundle holds files for and that the installed ONNX Runtime can be."""

from __future__ import annotations

from gkt_core.bundle.manifest import ORT_TRAINING, PORTABLE, Manifest
from gkt_core.bundle.onnx_runtime import can_train, check_one_distribution, onnxruntime_module
from gkt_core.errors import ArtifactError

_PREFERRED = (PORTABLE, ORT_TRAINING)


def installed_engines() -> tuple[str, ...]:
    """Name the engines that can run here, the faster first.

    Raises:
        MissingExtraError: No ONNX Runtime is installed.
        PackageConflictError: Two distributions of ONNX Runtime are installed.
    """
    check_one_distribution()
    onnxruntime_module()
    return _PREFERRED if can_train() else (PORTABLE,)


def choose_engine(manifest: Manifest, wanted: str | None = None) -> str:
    """Choose the engine to train with.

    Args:
        manifest: Of the bundle.
        wanted: An engine that was asked for; by default the fastest that can be had.

    Raises:
        ArtifactError: The bundle holds no engine that is installed, or not the wanted one.
        MissingExtraError: No ONNX Runtime is installed.
        PackageConflictError: Two distributions of ONNX Runtime are installed.
    """
    installed = installed_engines()
    for engine in (wanted,) if wanted else installed:
        if engine in installed and engine in manifest.engines:
            return engine
    raise ArtifactError(
        f"the bundle is for {', '.join(manifest.engines)}, installed is {', '.join(installed)}"
        f"{f', wanted is {wanted}' if wanted else ''}: export with --engine both, or install "
        "'gkt-edge[edge]' in place of the installed onnxruntime"
    )
