"""Training with any ONNX Runtime: a session over ``train_step.onnx``, standard operators only.

The state lives in two sets of buffers, allocated once and bound to the session: a step reads one set and
writes the other, then they change places. Nothing of it passes through Python.

Eval mode has a session of its own, whose weights are constants: ONNX Runtime then folds batch norm into them
and uses the blocked layout that it is fastest with. It is made when the state has changed, once a round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from edge_runtime.engines.batch_checks import check_batch
from edge_runtime.engines.frozen_inputs import freeze_inputs
from edge_runtime.engines.graph_trouble import graph_trouble_named
from gkt_core.bundle.manifest import INITIAL_STATE, PORTABLE, PREDICT, TRAIN_STEP, Bundle
from gkt_core.bundle.memory import images_at_once
from gkt_core.bundle.onnx_runtime import cpu_session, onnxruntime_module, training_options
from gkt_core.bundle.portable_state import PARAMETERS, STATISTICS, PortableState
from gkt_core.errors import ArtifactError
from gkt_core.files import write_atomically
from gkt_core.onnx_files.judging import check_model_file
from gkt_core.onnx_files.operators import STANDARD

# A step of fewer images is no faster with more threads than with one: what they hand each other takes longer.
_FEW_IMAGES = 4
# Images that eval mode takes at once: a tenth faster than 64 where an L2 cache holds 2 MB, and less memory.
_MOST_AT_ONCE = 16
Vectors = dict[str, NDArray[Any]]


class PortableEngine:
    """A :class:`gkt_core.rounds.engine.DeviceEngine` on the portable step.

    Raises:
        ArtifactError: The files or the checkpoint do not load.
        UnsafeModelError: A file would do more than arithmetic on images; it is not opened.
    """

    name = PORTABLE

    def __init__(
        self,
        bundle: Bundle,
        checkpoint: Path | None = None,
        num_threads: int = 1,
        learning_rate: float = 1e-3,
    ) -> None:
        ort = onnxruntime_module()
        manifest = bundle.manifest
        self._num_classes = manifest.num_classes
        self._layout = manifest.portable_layout()
        self._bundle, self._num_threads = bundle, num_threads
        self._features = manifest.feature_shape
        self._steps = {num_threads: self._session(self._file(TRAIN_STEP), num_threads)}
        self._predict_model = self._file(PREDICT, computes="features")
        self._predict: Any = None
        vectors = _read(bundle.file(INITIAL_STATE) if checkpoint is None else checkpoint, self._layout)
        spare = {name: np.zeros_like(vector) for name, vector in vectors.items()}
        self._buffers = [vectors, spare]
        # An OrtValue shares memory with its array, so both must live as long as the session.
        self._values = [
            {name: ort.OrtValue.ortvalue_from_numpy(vector) for name, vector in buffers.items()}
            for buffers in self._buffers
        ]
        self._gradient = np.zeros(self._layout.vectors[PARAMETERS], np.float32)
        self._gradient_value = ort.OrtValue.ortvalue_from_numpy(self._gradient)
        self._bindings: dict[int, list[Any]] = {}
        self._current = 0
        self._learning_rate = np.array(learning_rate, np.float32)

    def _file(self, name: str, *, computes: str = "") -> bytes:
        path = self._bundle.file(name)
        try:
            return check_model_file(path, STANDARD, computes=computes)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: export or download the bundle again") from error

    def _session(self, model: bytes, num_threads: int) -> Any:
        try:
            return cpu_session(model, training_options(num_threads))
        # ONNX Runtime's exceptions have no common base of their own.
        except Exception as error:
            installed = onnxruntime_module().__version__
            raise ArtifactError(
                f"ONNX Runtime {installed} cannot load the portable step in {self._bundle.path}: "
                f"{str(error)[:300]}: export it again, or install a newer onnxruntime"
            ) from error

    def _prepared(self, num_images: int) -> tuple[Any, Any]:
        """Give session and binding for a step of so many images; made when first needed."""
        num_threads = self._num_threads if num_images >= _FEW_IMAGES else 1
        if num_threads not in self._steps:
            self._steps[num_threads] = self._session(self._file(TRAIN_STEP), num_threads)
        session = self._steps[num_threads]
        if num_threads not in self._bindings:
            self._bindings[num_threads] = [self._bind(session, current) for current in (0, 1)]
        return session, self._bindings[num_threads][self._current]

    def _bind(self, session: Any, current: int) -> Any:
        binding = session.io_binding()
        for name, value in self._values[current].items():
            binding.bind_ortvalue_input(name, value)
        for name, value in self._values[1 - current].items():
            binding.bind_ortvalue_output(f"next_{name}", value)
        binding.bind_ortvalue_output("gradient", self._gradient_value)
        return binding

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the rate of all steps from now on."""
        self._learning_rate = np.array(learning_rate, np.float32)

    @graph_trouble_named()
    def train_step(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        server_logits: NDArray[np.float32],
        alpha: float,
    ) -> tuple[float, NDArray[np.float32]]:
        """Minimise Eq. 7 on one batch, with one optimizer step; see the protocol.

        Raises:
            DatasetError: Images are not finite, or a label is none of the classes.
        """
        check_batch(images, labels, self._num_classes)
        self._predict = None
        session, binding = self._prepared(len(images))
        inputs = {
            "images": np.ascontiguousarray(images),
            "labels": np.ascontiguousarray(labels),
            "server_logits": np.ascontiguousarray(server_logits),
            "alpha": np.array(alpha, np.float32),
            "learning_rate": self._learning_rate,
        }
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("loss", "cpu")
        binding.bind_output("logits", "cpu")
        session.run_with_iobinding(binding)
        # A binding gives its outputs in the order in which they were bound first: these two were the last.
        loss, logits = binding.get_outputs()[-2:]
        self._current = 1 - self._current
        return float(loss.numpy()), np.array(logits.numpy())

    @graph_trouble_named()
    def predict(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute features ``[N, C, H, W]`` and logits ``[N, classes]`` in eval mode."""
        if self._predict is None:
            state = self._buffers[self._current]
            weights = {name: state[name] for name in (PARAMETERS, STATISTICS) if state[name].size}
            self._predict = self._session(freeze_inputs(self._predict_model, weights), self._num_threads)
        outputs = {
            "features": np.empty((len(images), *self._features), np.float32),
            "logits": np.empty((len(images), self._num_classes), np.float32),
        }
        at_once = min(_MOST_AT_ONCE, images_at_once(images.shape[-1]))
        for begin in range(0, len(images), at_once):
            binding = self._predict.io_binding()
            binding.bind_cpu_input("images", np.ascontiguousarray(images[begin : begin + at_once]))
            for name, output in outputs.items():
                part = output[begin : begin + at_once]
                binding.bind_output(name, "cpu", 0, np.float32, part.shape, part.ctypes.data)
            self._predict.run_with_iobinding(binding)
        return outputs["features"], outputs["logits"]

    def save(self, path: Path) -> None:
        """Write parameters, running statistics and optimizer state, by atomic rename."""
        metadata = {"gkt": json.dumps({"engine": self.name, "learning_rate": float(self._learning_rate)})}
        write_atomically(path, safetensors.numpy.save(self._buffers[self._current], metadata), mode=0o600)

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Copy all parameters and running statistics, by their PyTorch names."""
        return self._layout.tensors(self._buffers[self._current])

    def replace(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        """Overwrite some parameters and running statistics, by name; the optimizer's state stays."""
        self._layout.put(self._buffers[self._current], tensors)
        self._predict = None

    def gradients(self) -> dict[str, NDArray[np.float32]]:
        """Copy the gradients of the last step, by parameter name; an L2 penalty included."""
        return self._layout.tensors({PARAMETERS: self._gradient})


def _read(path: Path, layout: PortableState) -> Vectors:
    """Read state vectors from a file, into buffers of their own."""
    try:
        stored = safetensors.numpy.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"cannot read the training state {path}: {error}") from error
    expected = {name: (layout.dtypes[name], (length,)) for name, length in layout.vectors.items()}
    if {name: (str(vector.dtype), vector.shape) for name, vector in stored.items()} != expected:
        raise ArtifactError(
            f"{path} holds {sorted(stored)} of another network or optimizer, the bundle expects "
            f"{sorted(expected)}: remove it, or use the bundle that it was made with"
        )
    return {name: np.array(stored[name]) for name in layout.vectors}
