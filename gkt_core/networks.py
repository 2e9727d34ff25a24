"""Names of the networks and what a device must know of them without torch."""

from __future__ import annotations

from collections.abc import Sequence

from gkt_core.errors import ConfigError

EDGE_NETWORKS = ("resnet4", "resnet6", "resnet8")
SERVER_NETWORKS = ("resnet55", "resnet109")
FULL_NETWORKS = ("resnet56", "resnet110")
TAP_CHANNELS = 16


def feature_shape(image_size: int) -> tuple[int, int, int]:
    """Shape ``(C, H, W)`` of one sample's features at the tap."""
    return (TAP_CHANNELS, image_size, image_size)


def check_network(name: str, allowed: Sequence[str], num_classes: int) -> None:
    """Refuse unknown networks and class counts that nothing can be learned with.

    Raises:
        ConfigError: Names what is allowed.
    """
    if name not in allowed:
        raise ConfigError(f"unknown network {name!r}, expected one of {', '.join(allowed)}")
    if not 2 <= num_classes <= 100_000:
        raise ConfigError(f"number of classes is {num_classes}, expected 2 to 100000")
