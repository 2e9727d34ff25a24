"""Momentum for ONNX Runtime's optimizer model, which is plain SGD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from gkt_core.errors import ArtifactError

_CHECKPOINT = "checkpoint"
Tensors = dict[str, NDArray[np.float32]]


class Momentum:
    """The momentum buffers of all parameters, in PyTorch's order of operations.

    Args:
        momentum: Of the buffers.
        nesterov: Whether to look ahead.
    """

    def __init__(self, momentum: float, nesterov: bool) -> None:
        self._momentum = np.float32(momentum)
        self._nesterov = nesterov
        self._buffers: Tensors = {}

    def directions(self, gradients: Tensors) -> Tensors:
        """Compute what plain SGD then multiplies with the learning rate, in place of the gradients."""
        directions = {}
        for name, gradient in gradients.items():
            buffer = self._momentum * self._buffers.get(name, np.zeros_like(gradient)) + gradient
            self._buffers[name] = buffer
            directions[name] = gradient + self._momentum * buffer if self._nesterov else buffer
        return directions

    def pack(self, checkpoint: bytes) -> bytes:
        """Put ONNX Runtime's checkpoint and the buffers into one file."""
        tensors: dict[str, NDArray[np.generic]] = {_CHECKPOINT: np.frombuffer(checkpoint, np.uint8)}
        tensors |= {f"momentum/{name}": buffer for name, buffer in self._buffers.items()}
        return safetensors.numpy.save(tensors)

    def unpack(self, path: Path) -> bytes:
        """Take the buffers out of a file of :meth:`pack`; ONNX Runtime's checkpoint.

        Raises:
            ArtifactError: It is no such file.
        """
        try:
            tensors = safetensors.numpy.load(path.read_bytes())
            checkpoint = tensors.pop(_CHECKPOINT).tobytes()
        except (OSError, SafetensorError, KeyError) as error:
            raise ArtifactError(
                f"{path} is no checkpoint with momentum: remove it, or use the bundle that it was made with"
            ) from error
        self._buffers = {name.removeprefix("momentum/"): np.array(value) for name, value in tensors.items()}
        return checkpoint
