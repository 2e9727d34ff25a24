"""The networks by name, those that a user registers included. Loads no torch itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gkt_core.errors import ConfigError
from gkt_core.user_modules import load_user_module

EDGE_NETWORKS = ("resnet4", "resnet6", "resnet8")
# Half of the stem's filters mirror the other half: see gkt_core.nn.resnet.TiedExtractor.
TIED_NETWORKS = ("resnet8-tied",)
# For large images: a stem of so many pixels' stride, by name; features are as much smaller on each side.
STRIDED_NETWORKS = {"resnet8-stride2": 2, "resnet8-stride4": 4}
SERVER_NETWORKS = ("resnet55", "resnet109")
FULL_NETWORKS = ("resnet56", "resnet110")
TAP_CHANNELS = 16
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True)
class EdgeNetworkParts:
    """A registered edge network; what the functions return are ``torch.nn.Module``.

    Attributes:
        extractor: Builds f_e: normalised images ``[N, 3, S, S]`` to features ``[N, C, H, W]``.
        head: Builds f_c for a number of classes: features to logits ``[N, classes]``.
    """

    extractor: Callable[[], Any]
    head: Callable[[int], Any]


_registered_edges: dict[str, EdgeNetworkParts] = {}
_registered_servers: dict[str, Callable[[int], Any]] = {}


def register_edge_network(name: str, *, extractor: Callable[[], Any], head: Callable[[int], Any]) -> None:
    """Make an edge network of one's own known as ``--model NAME``.

    Args:
        name: Lower-case letters, digits, ``_`` and ``-``; not one of the built-in names.
        extractor: ``extractor()`` builds the part that ships with the final model: normalised images
            ``[N, 3, S, S]`` to features ``[N, C, H, W]``.
        head: ``head(num_classes)`` builds the local classifier: features to logits ``[N, num_classes]``.

    Raises:
        ConfigError: The name cannot be used.
    """
    _check_new_name(name)
    _registered_edges[name] = EdgeNetworkParts(extractor, head)


def register_server_network(name: str, build: Callable[[int], Any]) -> None:
    """Make a server network of one's own known as ``--server-model NAME``; names are as of edge networks.

    ``build(num_classes)`` maps features of the edge network to logits ``[N, num_classes]``.

    Raises:
        ConfigError: The name cannot be used.
    """
    _check_new_name(name)
    _registered_servers[name] = build


def check_name(name: str) -> None:
    """Refuse what can be no network's name.

    Raises:
        ConfigError: The name has other characters, or none.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"network name {name[:60]!r}: expected up to 40 of a-z, 0-9, '_', '-', a letter first"
        )


def _check_new_name(name: str) -> None:
    check_name(name)
    if name in EDGE_NETWORKS + TIED_NETWORKS + tuple(STRIDED_NETWORKS) + SERVER_NETWORKS + FULL_NETWORKS:
        raise ConfigError(f"network name {name!r} is a built-in one: choose another")


def load_network_module(source: str) -> None:
    """Import a user's ``path/to/networks.py`` or importable module, which registers networks.

    Raises:
        ConfigError: It cannot be imported.
    """
    load_user_module(source, "networks")


def registered_edge(name: str) -> EdgeNetworkParts | None:
    """A registered edge network, or None."""
    return _registered_edges.get(name)


def registered_server(name: str) -> Callable[[int], Any] | None:
    """A registered server network, or None."""
    return _registered_servers.get(name)


def edge_network_names() -> tuple[str, ...]:
    """Built-in and registered names."""
    return EDGE_NETWORKS + TIED_NETWORKS + tuple(STRIDED_NETWORKS) + tuple(_registered_edges)


def server_network_names() -> tuple[str, ...]:
    """Built-in and registered names."""
    return SERVER_NETWORKS + tuple(_registered_servers)


def check_network(name: str, allowed: Sequence[str], num_classes: int) -> None:
    """Refuse unknown networks and class counts that nothing can be learned with.

    Raises:
        ConfigError: Names what is allowed.
    """
    if name not in allowed:
        raise ConfigError(f"unknown network {name!r}, expected one of {', '.join(allowed)}")
    check_num_classes(num_classes)


def check_num_classes(num_classes: int) -> None:
    """Refuse class counts that nothing can be learned with.

    Raises:
        ConfigError: The count is out of range.
    """
    if not 2 <= num_classes <= 100_000:
        raise ConfigError(f"number of classes is {num_classes}, expected 2 to 100000")
