"""The networks of the paper, in torch. Nothing outside nn/ and algorithms/ imports this."""

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
