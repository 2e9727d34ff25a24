"""The algorithms, a file each, which reads like its paper's pseudocode. In torch."""

from gkt_core.algorithms.base import Evaluation
from gkt_core.algorithms.server_round import (
    DivergedError,
    ServerPlace,
    ServerProgress,
    ServerUpdate,
    evaluate,
    server_update,
)
from gkt_core.algorithms.simulation.torch_engine import TorchEngine

__all__ = [
    "DivergedError",
    "Evaluation",
    "ServerPlace",
    "ServerProgress",
    "ServerUpdate",
    "TorchEngine",
    "evaluate",
    "server_update",
]
