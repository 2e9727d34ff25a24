"""The networks of the paper, in torch. Within this package only algorithms/ imports it."""

from gkt_core.nn.building import (
    CombinedNetwork,
    EdgeNetwork,
    build_combined_network,
    build_edge_network,
    build_full_network,
    build_server_network,
    feature_shape,
)
from gkt_core.nn.losses import edge_loss, kd_loss, server_loss

__all__ = [
    "CombinedNetwork",
    "EdgeNetwork",
    "build_combined_network",
    "build_edge_network",
    "build_full_network",
    "build_server_network",
    "edge_loss",
    "feature_shape",
    "kd_loss",
    "server_loss",
]
