"""The networks by name, and how extractor, local head and server network fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from gkt_core.config import check_image_size
from gkt_core.errors import ConfigError
from gkt_core.networks import EDGE_NETWORKS, FULL_NETWORKS, SERVER_NETWORKS, check_network
from gkt_core.nn.resnet import FeatureExtractor, edge_head, initialise, server_trunk

_EDGE_BLOCKS = {"resnet4": (1, False), "resnet6": (2, False), "resnet8": (2, True)}
_STAGE_BLOCKS = {"resnet55": 6, "resnet109": 12}
_FULL_TO_SERVER = {"resnet56": "resnet55", "resnet110": "resnet109"}


ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Normalise(nn.Module):
    """``(images - mean) / std`` per channel, inside the graph, so that no device can forget it."""

    mean: Tensor
    std: Tensor

    def __init__(self, pixel_mean: tuple[float, ...], pixel_std: tuple[float, ...]) -> None:
        super().__init__()
        # Not persistent: constants of the graph, not state that training or a checkpoint may change.
        self.register_buffer("mean", torch.tensor(pixel_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pixel_std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[N, 3, S, S]`` in 0..1 to zero mean and unit variance."""
        return (images - self.mean) / self.std


class EdgeNetwork(nn.Module):
    """What a device trains: normalisation, extractor f_e, local head f_c (Eq. 5)."""

    def __init__(self, head: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.extractor = FeatureExtractor()
        self.head = head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images ``[N, 3, S, S]`` in 0..1 to ``features [N, 16, S, S]`` and ``logits [N, C]``."""
        features = self.extractor(self.normalise(images))
        return features, self.head(features)


class CombinedNetwork(nn.Module):
    """Extractor + server network: the model that the training is for (section 3.2, inference).

    With ResNet-55 this *is* ResNet-56 (464 + 590,858 = 591,322 parameters).
    """

    def __init__(self, extractor: FeatureExtractor, server: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.extractor = extractor
        self.server = server

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[N, 3, S, S]`` in 0..1 to ``logits [N, C]``."""
        logits: Tensor = self.server(self.extractor(self.normalise(images)))
        return logits


def _seeded(build: Callable[[], ModuleT], seed: int) -> ModuleT:
    # PyTorch's constructors draw weights of their own, which are then replaced: the global random state
    # must not notice.
    with torch.random.fork_rng(devices=[]):
        module = build()
    initialise(module, torch.Generator().manual_seed(seed))
    return module


def build_edge_network(
    name: str,
    num_classes: int,
    *,
    pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
    pixel_std: tuple[float, ...] = (0.25, 0.25, 0.25),
    seed: int = 0,
) -> EdgeNetwork:
    """Build ``resnet4``, ``resnet6`` or ``resnet8`` with fresh weights.

    Raises:
        ConfigError: The name is unknown or the class count is not at least 2.
    """
    check_network(name, EDGE_NETWORKS, num_classes)
    num_blocks, bottleneck = _EDGE_BLOCKS[name]

    def build() -> EdgeNetwork:
        head = edge_head(num_blocks, num_classes, bottleneck=bottleneck)
        return EdgeNetwork(head, Normalise(pixel_mean, pixel_std))

    return _seeded(build, seed)


def build_server_network(name: str, num_classes: int, *, seed: int = 0) -> nn.Module:
    """Build ``resnet55`` or ``resnet109`` with fresh weights: features ``[N, 16, S, S]`` to logits.

    Raises:
        ConfigError: The name is unknown or the class count is not at least 2.
    """
    check_network(name, SERVER_NETWORKS, num_classes)
    return _seeded(lambda: server_trunk(_STAGE_BLOCKS[name], num_classes), seed)


def build_full_network(
    name: str,
    num_classes: int,
    *,
    pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
    pixel_std: tuple[float, ...] = (0.25, 0.25, 0.25),
    seed: int = 0,
) -> CombinedNetwork:
    """Build ``resnet56`` or ``resnet110``: what FedAvg's devices and centralised training use.

    Raises:
        ConfigError: The name is unknown or the class count is not at least 2.
    """
    check_network(name, FULL_NETWORKS, num_classes)

    def build() -> CombinedNetwork:
        server = server_trunk(_STAGE_BLOCKS[_FULL_TO_SERVER[name]], num_classes)
        return CombinedNetwork(FeatureExtractor(), server, Normalise(pixel_mean, pixel_std))

    return _seeded(build, seed)


def example_images(num: int, image_size: int, *, seed: int = 0) -> Tensor:
    """Random images ``[num, 3, image_size, image_size]`` in 0..1, for tracing and timing.

    Raises:
        ConfigError: The size is not one that the networks take, or there are fewer than 1.
    """
    check_image_size(image_size)
    if num < 1:
        raise ConfigError(f"batch size is {num}, expected at least 1")
    return torch.rand(num, 3, image_size, image_size, generator=torch.Generator().manual_seed(seed))
