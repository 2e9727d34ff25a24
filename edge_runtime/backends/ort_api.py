"""ONNX Runtime's training API, imported without torch and without onnx.

In the training builds, ``import onnxruntime`` runs ``onnxruntime.training``, which imports onnx and, where
it is installed, torch (microsoft/onnxruntime#22070). Neither is needed to train. So an empty module with
the right search path takes the place of ``onnxruntime.training`` while ONNX Runtime is imported.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gkt_core.errors import MissingExtraError

_PACKAGE = "onnxruntime.training"
# The engine for PyTorch modules, which ``import onnxruntime`` tries for, and torch with it.
_ORTMODULE = "onnxruntime.training.ortmodule"


def onnxruntime_module() -> Any:
    """The module ``onnxruntime``, whichever build is installed, without what its training part drags in.

    Raises:
        MissingExtraError: No ONNX Runtime is installed.
    """
    with _stand_in(_training_folder()):
        return importlib.import_module("onnxruntime")


def training_api() -> Any:
    """The module ``onnxruntime.training.api``.

    Raises:
        MissingExtraError: The installed ONNX Runtime is no training build, or there is none.
    """
    folder = _training_folder()
    if not (folder / "api").is_dir():
        found = onnxruntime_module().__version__
        raise MissingExtraError(
            f"the installed onnxruntime {found} cannot train: "
            "pip uninstall onnxruntime, then pip install 'gkt-edge[edge]'"
        )
    with _stand_in(folder):
        return importlib.import_module(f"{_PACKAGE}.api")


def can_train() -> bool:
    """Whether the installed ONNX Runtime is a training build.

    Raises:
        MissingExtraError: No ONNX Runtime is installed.
    """
    return (_training_folder() / "api").is_dir()


def _training_folder() -> Path:
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise MissingExtraError.for_module("onnxruntime", "edge")
    return Path(spec.origin).parent / "training"


@contextlib.contextmanager
def _stand_in(folder: Path) -> Iterator[None]:
    """Let an empty module be ``onnxruntime.training`` while something is imported.

    It goes away afterwards: whoever wants the real package later, such as an exporter in the same
    process, gets it.
    """
    if _PACKAGE in sys.modules or not folder.is_dir():
        yield
        return
    module = types.ModuleType(_PACKAGE)
    module.__path__ = [str(folder)]
    blocked: dict[str, Any] = {_PACKAGE: module, _ORTMODULE: None}
    sys.modules.update(blocked)
    try:
        yield
    finally:
        for name in blocked:
            sys.modules.pop(name, None)
