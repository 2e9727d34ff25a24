"""The device: numpy and ONNX Runtime. Never torch, never onnx.

The names are imported when they are used: ``gkt edge --help`` loads this package, also without an extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gkt_core.lazy_names import lazy_names as _lazy_names

if TYPE_CHECKING:
    from edge_runtime.client import Client
    from edge_runtime.device import DeviceResult
    from edge_runtime.engines.base import open_engine
    from edge_runtime.evaluation import evaluate_model
    from gkt_core.rounds.engine import DeviceEngine

__all__ = ["Client", "DeviceEngine", "DeviceResult", "evaluate_model", "open_engine"]

_WHERE = {
    "Client": "edge_runtime.client",
    "DeviceEngine": "gkt_core.rounds.engine",
    "DeviceResult": "edge_runtime.device",
    "evaluate_model": "edge_runtime.evaluation",
    "open_engine": "edge_runtime.engines.base",
}

__getattr__ = _lazy_names(__name__, _WHERE)
