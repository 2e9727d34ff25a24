"""The interfaces of what trains on a device: ONNX Runtime, the portable step, PyTorch in simulations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class TrainingEngine(Protocol):
    """Trains one edge network."""

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate of all steps from now on."""
        ...

    def train_step(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        server_logits: NDArray[np.float32],
        alpha: float,
    ) -> tuple[float, NDArray[np.float32]]:
        """Minimise Eq. 7 on one batch, with one optimizer step.

        Args:
            images: ``[N, 3, S, S] float32`` in 0..1.
            labels: ``[N] int64``.
            server_logits: ``[N, C] float32``, raw.
            alpha: Weight of the distillation.

        Returns:
            The loss before the step, and the logits ``[N, C]`` it was computed from.
        """
        ...

    def predict(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute features ``[N, C, H, W]`` and logits ``[N, classes]`` of ``images``, in eval mode."""
        ...


class DeviceEngine(TrainingEngine, Protocol):
    """An engine of a real device: it also saves its state, and gives its weights."""

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

    def replace(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        """Overwrite some parameters and running statistics, by name; the optimizer's state stays."""
        ...
