"""ONNX Runtime, whichever build is installed, imported without torch and without onnx.

In the training builds, ``import onnxruntime`` runs ``onnxruntime.training``, which imports onnx and, where
it is installed, torch (microsoft/onnxruntime#22070). Neither is needed to run a model or to train one. So an
empty module with the right search path takes the place of ``onnxruntime.training`` while ONNX Runtime is
imported.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from gkt_core.errors import MissingExtraError, PackageConflictError

TRAINING_PACKAGE = "onnxruntime.training"
# The engine for PyTorch modules, which ``import onnxruntime`` tries for, and torch with it.
_ORTMODULE = "onnxruntime.training.ortmodule"

# How ONNX Runtime says that memory ran out; its exceptions have no class of their own for it.
_OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory", "bad allocation")

# Each is a distribution that installs the module onnxruntime over any other's.
DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-training",
    "onnxruntime-training-cpu",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
)


def onnxruntime_module() -> Any:
    """Import the module ``onnxruntime``, without what its training part drags in.

    Raises:
        MissingExtraError: No ONNX Runtime is installed.
    """
    with without_torch(training_folder()):
        return importlib.import_module("onnxruntime")


def session_options(num_threads: int = 1) -> Any:
    """Make the options of every session: so many CPU threads for an operator, and no warnings.

    Raises:
        MissingExtraError: No ONNX Runtime is installed.
    """
    options = onnxruntime_module().SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def training_options(num_threads: int = 1) -> Any:
    """Make the options of a session that trains, without a plan of all buffers at once.

    With one, batches of 64 take 416 MB for 259 (ONNX Runtime's training build) and no step is faster for it.

    Raises:
        MissingExtraError: No ONNX Runtime is installed.
    """
    options = session_options(num_threads)
    options.enable_mem_pattern = False
    return options


def optimising_options(target: Path) -> Any:
    """Make options with which a session writes its graph, optimised as far as any machine can run it."""
    options = session_options()
    options.graph_optimization_level = onnxruntime_module().GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    return options


def cpu_session(model: Path | bytes, options: Any) -> Any:
    """Load a model for the CPU.

    Raises:
        Exception: It does not load; ONNX Runtime's exceptions have no common base of their own.
    """
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime_module().InferenceSession(source, options, providers=["CPUExecutionProvider"])


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception, ONNX Runtime's or another, means that memory ran out."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def installed_versions(names: Iterable[str] = DISTRIBUTIONS) -> dict[str, str]:
    """Give the versions of those distributions that are installed; by default every build of ONNX Runtime."""
    installed = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


def check_one_distribution() -> None:
    """Refuse an environment in which two builds have overwritten each other's files.

    Raises:
        PackageConflictError: Names them and the remedy.
    """
    installed = installed_versions()
    if len(installed) > 1:
        listed = ", ".join(f"{name} {number}" for name, number in installed.items())
        raise PackageConflictError(
            f"{listed} are installed together and overwrite each other's files: "
            f"pip uninstall {' '.join(installed)}, then pip install one of them, as "
            "'gkt-edge[edge]', 'gkt-edge[edge-portable]' or 'gkt-edge[edge-cuda]' does"
        )


def training_folder() -> Path:
    """Say where the training part lies, or would lie.

    Raises:
        MissingExtraError: No ONNX Runtime is installed.
    """
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise MissingExtraError.for_module("onnxruntime", "edge")
    return Path(spec.origin).parent / "training"


def can_train() -> bool:
    """Say whether the installed ONNX Runtime is a training build.

    Raises:
        MissingExtraError: No ONNX Runtime is installed.
    """
    return (training_folder() / "api").is_dir()


@contextlib.contextmanager
def without_torch(folder: Path) -> Iterator[None]:
    """Let an empty module be ``onnxruntime.training`` while something is imported.

    It goes away afterwards: whoever wants the real package later, such as an exporter in the same
    process, gets it.
    """
    if TRAINING_PACKAGE in sys.modules or not folder.is_dir():
        yield
        return
    module = types.ModuleType(TRAINING_PACKAGE)
    module.__path__ = [str(folder)]
    with standing_in({TRAINING_PACKAGE: module, _ORTMODULE: None}):
        yield


@contextlib.contextmanager
def standing_in(modules: Mapping[str, types.ModuleType | None]) -> Iterator[None]:
    """Let these be what is imported; None for a name says that there is no such module. They go afterwards.

    None of the names is imported yet.
    """
    sys.modules.update(cast(Mapping[str, types.ModuleType], modules))
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
