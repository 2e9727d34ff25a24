"""The networks by name, and how extractor, local head and server network fit together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, TypeVar, Unpack

import torch
from torch import Tensor, nn

from gkt_core.bundle.template import SERVER_PREFIX
from gkt_core.config.run_config import check_image_size
from gkt_core.errors import ConfigError
from gkt_core.networks import (
    EDGE_LAYOUTS,
    EDGE_NETWORKS,
    FULL_NETWORKS,
    SERVER_LAYOUTS,
    check_network,
    completing_network,
    edge_network_names,
    registered_edge,
    registered_server,
    server_network_names,
)
from gkt_core.nn.initial_weights import load_weights
from gkt_core.nn.resnet import FeatureExtractor, edge_extractor, edge_head, initialise, server_trunk

_FULL_TO_SERVER = {"resnet56": "resnet55", "resnet110": "resnet109"}

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Pixels(TypedDict, total=False):
    """Mean and standard deviation of each channel, in 0..1; by default as :class:`Normalise` has them."""

    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]


class Normalise(nn.Module):
    """``(images - mean) / std`` per channel, inside the graph, so that no device can forget it."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        pixel_std: tuple[float, ...] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__()
        # Not persistent: constants of the graph, not state that training or a checkpoint may change.
        self.register_buffer("mean", torch.tensor(pixel_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pixel_std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[N, 3, S, S]`` in 0..1 to zero mean and unit variance."""
        return (images - self.mean) / self.std


class EdgeNetwork(nn.Module):
    """What a device trains: normalisation, extractor f_e, local head f_c (Eq. 5)."""

    def __init__(self, extractor: nn.Module, head: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.extractor = extractor
        self.head = head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images ``[N, 3, S, S]`` in 0..1 to ``features [N, C, H, W]`` and ``logits [N, classes]``."""
        features = self.extractor(self.normalise(images))
        return features, self.head(features)


class CombinedNetwork(nn.Module):
    """Extractor + server network: the model that the training is for (section 3.2, inference).

    With ResNet-55 this *is* ResNet-56 (464 + 590,858 = 591,322 parameters).
    """

    def __init__(self, extractor: nn.Module, server: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.extractor = extractor
        self.server = server

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[N, 3, S, S]`` in 0..1 to ``logits [N, C]``."""
        logits: Tensor = self.server(self.extractor(self.normalise(images)))
        return logits


def _registered(build: Callable[[], ModuleT], seed: int) -> ModuleT:
    # A user's module draws its weights as it likes, from PyTorch's own random state.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _seeded(build: Callable[[], ModuleT], seed: int) -> ModuleT:
    # PyTorch's constructors draw weights of their own, which are then replaced: the global random state
    # must not notice.
    with torch.random.fork_rng(devices=[]):
        module = build()
    initialise(module, torch.Generator().manual_seed(seed))
    return module


def build_edge_network(
    name: str, num_classes: int, *, seed: int = 0, **pixels: Unpack[Pixels]
) -> EdgeNetwork:
    """Build a built-in edge network or a registered one, with fresh weights.

    Raises:
        ConfigError: The name is unknown or the class count is not at least 2.
    """
    check_network(name, edge_network_names(), num_classes)
    parts = registered_edge(name)
    if parts is not None:
        return _registered(
            lambda: EdgeNetwork(parts.extractor(), parts.head(num_classes), Normalise(**pixels)), seed
        )
    layout = EDGE_LAYOUTS[name]

    def build() -> EdgeNetwork:
        head = edge_head(layout, num_classes)
        return EdgeNetwork(edge_extractor(layout), head, Normalise(**pixels))

    return _seeded(build, seed)


def build_server_network(
    name: str, num_classes: int, *, seed: int = 0, weights: Path | str | None = None
) -> nn.Module:
    """Build ``resnet55``, ``resnet109``, one for a narrow tap or a registered network.

    Weights are fresh, drawn from the seed, or those of a file such as ``server.safetensors`` of a run.

    It maps the features of the edge network that it goes with to logits.

    Raises:
        ConfigError: The name is unknown or the class count is not at least 2.
        ArtifactError: The weights are not of this network.
    """
    check_network(name, server_network_names(), num_classes)
    registered = registered_server(name)
    built: nn.Module
    if registered is not None:
        built = _registered(lambda: registered(num_classes), seed)
    else:
        built = _seeded(lambda: server_trunk(SERVER_LAYOUTS[name], num_classes), seed)
    load_weights(built, None if weights is None else Path(weights), prefix=SERVER_PREFIX)
    return built


def build_full_network(
    name: str, num_classes: int, *, seed: int = 0, **pixels: Unpack[Pixels]
) -> CombinedNetwork:
    """Build ``resnet56`` or ``resnet110``: what FedAvg's devices and centralised training use.

    Raises:
        ConfigError: The name is unknown or the class count is not at least 2.
    """
    check_network(name, FULL_NETWORKS, num_classes)

    def build() -> CombinedNetwork:
        server = server_trunk(SERVER_LAYOUTS[_FULL_TO_SERVER[name]], num_classes)
        return CombinedNetwork(FeatureExtractor(), server, Normalise(**pixels))

    return _seeded(build, seed)


def build_combined_network(
    edge_network: str, server_network: str, num_classes: int, *, seed: int = 0, **pixels: Unpack[Pixels]
) -> CombinedNetwork:
    """Build what a pair of networks becomes in the end: what FedAvg's devices train.

    With ResNet-55 or ResNet-109, and an edge network of the paper, that is ResNet-56 or ResNet-110.

    Raises:
        ConfigError: A name is unknown, they do not fit together, or the class count is not at least 2.
    """
    check_network(edge_network, edge_network_names(), num_classes)
    check_network(server_network, server_network_names(), num_classes)
    server_network = completing_network(edge_network, server_network)
    full = next((name for name, server in _FULL_TO_SERVER.items() if server == server_network), None)
    if full is not None and edge_network in EDGE_NETWORKS:
        return build_full_network(full, num_classes, **pixels, seed=seed)
    edge = build_edge_network(edge_network, num_classes, **pixels, seed=seed)
    server = build_server_network(server_network, num_classes, seed=seed)
    return CombinedNetwork(edge.extractor, server, edge.normalise)


def feature_shape(network: EdgeNetwork, image_size: int) -> tuple[int, int, int]:
    """Find the shape ``(C, H, W)`` of one sample's features at the tap.

    Raises:
        ConfigError: The extractor does not give such features.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            device = next(network.parameters()).device
            features, _ = network(example_images(1, image_size).to(device))
    except RuntimeError as error:
        raise ConfigError(f"the edge network does not take images of {image_size} px: {error}") from error
    finally:
        network.train(was_training)
    if features.ndim != 4 or features.shape[0] != 1:
        raise ConfigError(f"the extractor gives features {list(features.shape)}, expected [1, C, H, W]")
    channels, height, width = features.shape[1:]
    return channels, height, width


def example_images(num: int, image_size: int, *, seed: int = 0) -> Tensor:
    """Draw random images ``[num, 3, image_size, image_size]`` in 0..1, for tracing and timing.

    Raises:
        ConfigError: The size is not one that the networks take, or there are fewer than 1.
    """
    check_image_size(image_size)
    if num < 1:
        raise ConfigError(f"batch size is {num}, expected at least 1")
    return torch.rand(num, 3, image_size, image_size, generator=torch.Generator().manual_seed(seed))
