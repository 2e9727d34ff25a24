"""Training with ONNX Runtime's on-device training API (packages onnxruntime-training and -training-cpu)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.engines.batch_checks import check_batch
from edge_runtime.engines.graph_trouble import graph_trouble_named
from edge_runtime.engines.momentum import Momentum
from edge_runtime.engines.ort_api import training_api
from gkt_core.bundle.manifest import (
    CHECKPOINT,
    EVAL_MODEL,
    OPTIMIZER_MODEL,
    ORT_TRAINING,
    TRAINING_MODEL,
    Bundle,
)
from gkt_core.bundle.memory import images_at_once
from gkt_core.bundle.onnx_runtime import training_options
from gkt_core.errors import ArtifactError
from gkt_core.onnx_files.judging import check_model_file
from gkt_core.onnx_files.operators import OF_FILES, STANDARD


class OrtTrainingEngine:
    """A :class:`gkt_core.rounds.engine.DeviceEngine` on ONNX Runtime's artifacts."""

    name = ORT_TRAINING

    def __init__(
        self,
        bundle: Bundle,
        checkpoint: Path | None = None,
        num_threads: int = 1,
        learning_rate: float = 1e-3,
    ) -> None:
        api = training_api()
        manifest = bundle.manifest
        does = manifest.runtime_does.get(ORT_TRAINING, {})
        self._momentum = (
            Momentum(float(does["momentum"]), bool(does["nesterov"])) if "momentum" in does else None
        )
        self._outputs = ["loss", "logits", "features"]
        if manifest.edge_optimizer.l2_penalty:
            self._outputs.insert(0, "objective")
        path = bundle.file(CHECKPOINT) if checkpoint is None else checkpoint
        _check_files(bundle)
        try:
            self._state = self._load(api, path, packed=checkpoint is not None)
            self._module = api.Module(
                bundle.file(TRAINING_MODEL),
                self._state,
                bundle.file(EVAL_MODEL),
                session_options=training_options(num_threads),
            )
            self._optimizer = api.Optimizer(bundle.file(OPTIMIZER_MODEL), self._module)
        except RuntimeError as error:
            raise ArtifactError(
                f"ONNX Runtime cannot load the artifacts in {bundle.path}: {str(error)[:300]}: "
                "export them again, with the package versions of the manifest"
            ) from error
        self._optimizer.set_learning_rate(learning_rate)
        self._save_checkpoint = api.CheckpointState.save_checkpoint
        self._batch_norms = manifest.batch_norms
        self._num_classes = manifest.num_classes
        self._gradients: dict[str, NDArray[np.float32]] = {}
        names = self._module.input_names()
        if names != ["images", "labels", "server_logits", "alpha"]:
            raise ArtifactError(f"the training graph takes {names}: export the artifacts again")

    def _load(self, api: Any, path: Path, *, packed: bool) -> Any:
        if self._momentum is None or not packed:
            return api.CheckpointState.load_checkpoint(path)
        with tempfile.TemporaryDirectory() as folder:
            unpacked = Path(folder) / CHECKPOINT
            unpacked.write_bytes(self._momentum.unpack(path))
            return api.CheckpointState.load_checkpoint(unpacked)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the rate of all steps from now on; ONNX Runtime does not keep it in a checkpoint."""
        self._optimizer.set_learning_rate(learning_rate)

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
        self._module.train()
        before = {norm.running_var: self._read(norm.running_var) for norm in self._batch_norms}
        outputs = self._module(images, labels, server_logits, np.array(alpha, np.float32))
        named = dict(zip(self._outputs, outputs, strict=True))
        self._make_variances_unbiased(before, images.shape[0])
        self._gradients = {}
        if self._momentum is not None:
            self._gradients = self.gradients()
            for name, direction in self._momentum.directions(self._gradients).items():
                # A view of the engine's own buffer, from which its optimizer then takes its step.
                self._state.parameters[name].grad[...] = direction
        self._optimizer.step()
        self._module.lazy_reset_grad()
        return float(named["loss"]), np.array(named["logits"])

    @graph_trouble_named()
    def predict(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute features ``[N, C, H, W]`` and logits ``[N, classes]`` in eval mode."""
        self._module.eval()
        at_once = images_at_once(images.shape[-1])
        if len(images) > at_once:
            parts = [self.predict(images[at : at + at_once]) for at in range(0, len(images), at_once)]
            features, logits = zip(*parts, strict=True)
            return np.concatenate(features), np.concatenate(logits)
        num = images.shape[0]
        # The eval graph computes the loss as well; what goes into it does not matter here.
        outputs = self._module(
            images,
            np.zeros(num, np.int64),
            np.zeros((num, self._num_classes), np.float32),
            np.array(0.0, np.float32),
        )
        named = dict(zip(self._outputs, outputs, strict=True))
        return np.array(named["features"]), np.array(named["logits"])

    def save(self, path: Path) -> None:
        """Write parameters, running statistics and optimizer state, by atomic rename."""
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            self._save_checkpoint(self._state, temporary, include_optimizer_state=True)
            if self._momentum is not None:
                temporary.write_bytes(self._momentum.pack(temporary.read_bytes()))
            # For writing: Windows flushes no other.
            with temporary.open("r+b") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o600)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Copy all parameters and running statistics, by their PyTorch names."""
        return {name: np.array(parameter.data) for name, parameter in self._state.parameters}

    def replace(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        """Overwrite some parameters and running statistics, by name; the optimizer's state stays."""
        known = self.parameters()
        for name, values in tensors.items():
            if name not in known or known[name].shape != values.shape:
                raise ArtifactError(
                    f"{name} {list(values.shape)} is no tensor of this network: do device and server use "
                    "the same artifacts?"
                )
            self._state.parameters[name] = np.ascontiguousarray(values, np.float32)

    def gradients(self) -> dict[str, NDArray[np.float32]]:
        """Copy the gradients of the last step, by parameter name; an L2 penalty included."""
        return self._gradients or {
            name: np.array(parameter.grad)
            for name, parameter in self._state.parameters
            if parameter.requires_grad
        }

    def _read(self, name: str) -> NDArray[np.float32]:
        return np.array(self._state.parameters[name].data)

    def _make_variances_unbiased(self, before: dict[str, NDArray[np.float32]], batch_size: int) -> None:
        """Fold the unbiased batch variance into ``running_var``, as PyTorch does.

        The graph computed ``new = (1 - m) old + m var``; wanted is ``(1 - m) old + m var n / (n - 1)``.
        """
        for norm in self._batch_norms:
            num = batch_size * norm.num_pixels
            kept = np.float32(1 - norm.momentum) * before[norm.running_var]
            added = self._read(norm.running_var) - kept
            mended = kept + added * np.float32(num / (num - 1))
            self._state.parameters[norm.running_var] = mended.astype(np.float32)


def _check_files(bundle: Bundle) -> None:
    """Refuse files that would do more than training; the API opens them by their paths."""
    for name in (TRAINING_MODEL, EVAL_MODEL, OPTIMIZER_MODEL):
        path = bundle.file(name)
        try:
            check_model_file(
                path, OF_FILES.get(name, STANDARD), computes="features" if name == EVAL_MODEL else ""
            )
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: export or download the bundle again") from error
