"""The networks by name, those that a user registers included. Loads no torch itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gkt_core.errors import ConfigError
from gkt_core.user_modules import load_user_module

EDGE_NETWORKS = ("resnet4", "resnet6", "resnet8")
SERVER_NETWORKS = ("resnet55", "resnet109")
FULL_NETWORKS = ("resnet56", "resnet110")
TAP_CHANNELS = 16
# Channels of a Bottleneck's output over its planes.
EXPANSION = 4
# Of the stem, by its stride: as wide as sees every pixel with its neighbours.
STEM_KERNELS = {1: 3, 2: 5, 4: 7}
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True)
class EdgeLayout:
    """How a built-in edge network is built, and what leaves at its tap.

    Attributes:
        head_blocks: Residual blocks of the local head, behind the tap.
        bottleneck: Whether these are Bottlenecks, or BasicBlocks.
        is_tied: Whether half of the stem's filters mirror the other half
            (:class:`gkt_core.nn.resnet.TiedExtractor`).
        stem_stride: Of the first convolution, in pixels.
        tap_blocks: Bottlenecks of stride 2 between stem and tap; with any, a 1x1 convolution makes the tap
            (:class:`gkt_core.nn.resnet.NarrowExtractor`).
        channels: Of the tap.
    """

    head_blocks: int = 2
    bottleneck: bool = True
    is_tied: bool = False
    stem_stride: int = 1
    tap_blocks: int = 0
    channels: int = TAP_CHANNELS

    @property
    def stride(self) -> int:
        """Pixels of the image, on each side, for one of the features."""
        return self.stem_stride << self.tap_blocks

    @property
    def reach(self) -> int:
        """Pixels beyond the first one that a feature stands for which it sees as well, on each side."""
        return STEM_KERNELS[self.stem_stride] // 2 + sum(
            self.stem_stride << index for index in range(self.tap_blocks)
        )

    def feature_shape(self, image_size: int) -> tuple[int, int, int]:
        """``(C, H, W)`` of one sample's features, of images of a multiple of 4 pixels."""
        side = image_size // self.stride
        return self.channels, side, side


@dataclass(frozen=True, slots=True)
class ServerLayout:
    """How a built-in server network is built.

    Attributes:
        stage_blocks: Bottlenecks in each of its three stages.
        strides: Of the stages. Behind a narrow tap the first ones do not halve again what the tap has halved.
        channels: Of the features that it takes.
    """

    stage_blocks: int
    strides: tuple[int, int, int] = (1, 2, 2)
    channels: int = TAP_CHANNELS


# The narrow taps are named by what they give of images of 32 pixels; of others their stride is what holds.
EDGE_LAYOUTS = {
    "resnet4": EdgeLayout(head_blocks=1, bottleneck=False),
    "resnet6": EdgeLayout(bottleneck=False),
    "resnet8": EdgeLayout(),
    "resnet8-tied": EdgeLayout(is_tied=True),
    "resnet8-stride2": EdgeLayout(stem_stride=2),
    "resnet8-stride4": EdgeLayout(stem_stride=4),
    "resnet8-16x16x16": EdgeLayout(head_blocks=1, tap_blocks=1),
    "resnet8-16x8x8": EdgeLayout(tap_blocks=2),
    "resnet8-8x8x8": EdgeLayout(tap_blocks=2, channels=8),
}
TIED_NETWORKS = tuple(name for name, layout in EDGE_LAYOUTS.items() if layout.is_tied)
NARROW_NETWORKS = tuple(name for name, layout in EDGE_LAYOUTS.items() if layout.tap_blocks)
_STAGE_BLOCKS = {"resnet55": 6, "resnet109": 12}
# By the tap's stride: all end with maps of a quarter of the image's height and width.
_STRIDES = {1: (1, 2, 2), 2: (1, 1, 2), 4: (1, 1, 1)}
SERVER_LAYOUTS = {name: ServerLayout(blocks) for name, blocks in _STAGE_BLOCKS.items()} | {
    f"{name}-{edge.partition('-')[2]}": ServerLayout(
        blocks, _STRIDES[EDGE_LAYOUTS[edge].stride], EDGE_LAYOUTS[edge].channels
    )
    for name, blocks in _STAGE_BLOCKS.items()
    for edge in NARROW_NETWORKS
}


def layout_of(edge_network: str) -> EdgeLayout | None:
    """Say how a built-in network is built, as the edge network of a bundle; None of a user's own.

    ResNet-56 and ResNet-110, which FedAvg's devices train, are exported with the tap behind their stem.
    """
    return EDGE_LAYOUTS["resnet8"] if edge_network in FULL_NETWORKS else EDGE_LAYOUTS.get(edge_network)


def reach_of(edge_network: str) -> int:
    """Say how far features of a network see, as :attr:`EdgeLayout.reach`; of a user's own as a plain stem."""
    return (layout_of(edge_network) or EdgeLayout()).reach


def completing_network(edge_network: str, server_network: str) -> str:
    """Name the server network that completes an edge network: behind a narrow tap the one of that tap.

    ``resnet55`` behind ``resnet8-16x8x8`` is ``resnet55-16x8x8``. Any other name stays as it is.

    Raises:
        ConfigError: Both are built in, and the server network takes other channels than the tap has.
    """
    edge = layout_of(edge_network)
    if edge is not None and edge_network in NARROW_NETWORKS and server_network in SERVER_NETWORKS:
        return f"{server_network}-{edge_network.partition('-')[2]}"
    server = SERVER_LAYOUTS.get(server_network)
    if edge is not None and server is not None and edge.channels != server.channels:
        raise ConfigError(
            f"{server_network} takes features of {server.channels} channels, the tap of {edge_network} has "
            f"{edge.channels}: give --server-model {SERVER_NETWORKS[0]}, which then fits the tap"
        )
    return server_network


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
    if name in {*EDGE_LAYOUTS, *SERVER_LAYOUTS, *FULL_NETWORKS}:
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
    return (*EDGE_LAYOUTS, *_registered_edges)


def server_network_names() -> tuple[str, ...]:
    """Built-in and registered names."""
    return (*SERVER_LAYOUTS, *_registered_servers)


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
