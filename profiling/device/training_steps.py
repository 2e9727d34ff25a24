"""One full training step (forward, loss, backward, Adam) on each engine, as a call without arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

import edge_runtime
from gkt_core.bundle.manifest import load_bundle
from gkt_core.nn import CombinedNetwork, EdgeNetwork, build_edge_network, edge_loss
from gkt_core.nn.building import example_images
from profiling.counted.network_cost import EXTRACTOR, build_trainable

LEARNING_RATE = 1e-3
ALPHA = 1.0
TEMPERATURE = 3.0


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Random data of one step; times do not depend on the values.

    Attributes:
        images: ``[N, 3, S, S]`` in 0..1.
        labels: ``[N]``.
        server_logits: ``[N, C]``, raw.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    server_logits: npt.NDArray[np.float32]

    @classmethod
    def random(cls, batch_size: int, image_size: int, num_classes: int, *, seed: int = 0) -> TrainingBatch:
        """Draw a batch.

        Raises:
            ConfigError: The image size is not one that the networks take.
        """
        random = np.random.default_rng(seed)
        return cls(
            images=example_images(batch_size, image_size, seed=seed).numpy(),
            labels=random.integers(num_classes, size=batch_size),
            server_logits=random.standard_normal((batch_size, num_classes), dtype=np.float32),
        )


def pytorch_step(
    network: EdgeNetwork | CombinedNetwork, batch: TrainingBatch, *, is_channels_last: bool = False
) -> Callable[[], object]:
    """Prepare a step in eager PyTorch, default memory layout unless ``is_channels_last``.

    An edge network minimises Eq. 7 with distillation, a full network the cross entropy.
    """
    images, labels, server_logits = map(torch.from_numpy, (batch.images, batch.labels, batch.server_logits))
    if is_channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)

    def step() -> None:
        optimizer.zero_grad()
        if isinstance(network, EdgeNetwork):
            _, logits = network(images)
            loss = edge_loss(logits, labels, server_logits, ALPHA, TEMPERATURE)
        else:
            loss = F.cross_entropy(network(images), labels)
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def split_learning_step(extractor: nn.Module, batch: TrainingBatch) -> Callable[[], object]:
    """Prepare what split learning leaves on a device: the extractor forward, backward from a gradient."""
    images = torch.from_numpy(batch.images)
    extractor.train()
    optimizer = torch.optim.Adam(extractor.parameters(), lr=LEARNING_RATE)
    gradient = torch.full_like(extractor(images), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(extractor(images), gradient)
        optimizer.step()

    return step


def network_step(name: str, batch: TrainingBatch) -> Callable[[], object]:
    """Prepare a step in PyTorch of any network that is compared, split learning's part among them."""
    num_classes = batch.server_logits.shape[1]
    if name == EXTRACTOR:
        return split_learning_step(build_edge_network("resnet8", num_classes).extractor, batch)
    return pytorch_step(build_trainable(name, num_classes), batch)


def open_engine(bundle: Path, engine: str, num_threads: int) -> edge_runtime.DeviceEngine:
    """Open one of a bundle's engines with fresh weights.

    Raises:
        ArtifactError: The bundle does not load.
    """
    return edge_runtime.open_engine(
        load_bundle(bundle),
        checkpoint=None,
        num_threads=num_threads,
        learning_rate=LEARNING_RATE,
        engine=engine,
    )


def engine_step(
    bundle: Path, batch: TrainingBatch, *, engine: str, num_threads: int, alpha: float
) -> Callable[[], object]:
    """Prepare a step of the engine that a device runs.

    Args:
        bundle: An exported bundle.
        batch: What to train on.
        engine: Which of the bundle's engines.
        num_threads: Threads of the engine.
        alpha: Weight of the distillation; 0 leaves the cross entropy.

    Raises:
        ArtifactError: The bundle does not load.
    """
    opened = open_engine(bundle, engine, num_threads)

    def step() -> Any:
        return opened.train_step(batch.images, batch.labels, batch.server_logits, alpha)

    return step
