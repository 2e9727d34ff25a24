"""ONNX Runtime's training API, imported without torch and without onnx."""

from __future__ import annotations

import importlib
from typing import Any

from gkt_core.bundle.onnx_runtime import TRAINING_PACKAGE, onnxruntime_module, training_folder, without_torch
from gkt_core.errors import MissingExtraError


def training_api() -> Any:
    """Import the module ``onnxruntime.training.api``.

    Raises:
        MissingExtraError: The installed ONNX Runtime is no training build, or there is none.
    """
    folder = training_folder()
    if not (folder / "api").is_dir():
        installed = onnxruntime_module().__version__
        raise MissingExtraError(
            f"the installed onnxruntime {installed} cannot train: "
            "pip uninstall onnxruntime, then pip install 'gkt-edge[edge]'"
        )
    with without_torch(folder):
        return importlib.import_module(f"{TRAINING_PACKAGE}.api")
