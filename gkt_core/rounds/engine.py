"""The interface of what trains on a device: ONNX Runtime, the portable step, PyTorch in simulations."""

from __future__ import annotations

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
