"""The device: numpy and ONNX Runtime. Never torch, never onnx."""

from edge_runtime.engines.base import TrainingBackend, open_backend

__all__ = ["TrainingBackend", "open_backend"]
