"""The algorithms, a file each, which reads like its paper's pseudocode. In torch."""

from gkt_core.algorithms.fedgkt import (
    Evaluation,
    ServerProgress,
    ServerUpdate,
    TorchEngine,
    evaluate,
    server_optimizer,
    server_update,
)

__all__ = [
    "Evaluation",
    "ServerProgress",
    "ServerUpdate",
    "TorchEngine",
    "evaluate",
    "server_optimizer",
    "server_update",
]
