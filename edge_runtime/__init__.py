"""The device: numpy and ONNX Runtime. Never torch, never onnx."""

from edge_runtime.engines.base import open_engine
from gkt_core.rounds.engine import DeviceEngine

__all__ = ["DeviceEngine", "open_engine"]
