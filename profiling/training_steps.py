"""One full training step (forward, loss, backward, Adam) on each engine, as a call without arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from edge_export import ExportOptions, export_bundle
from edge_runtime.backends.ort_training import OrtTrainingBackend
from gkt_core.manifest import load_bundle
from gkt_core.nn import CombinedNetwork, EdgeNetwork, edge_loss
from gkt_core.nn.networks import example_images

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


def pytorch_step(network: EdgeNetwork | CombinedNetwork, batch: TrainingBatch) -> Callable[[], object]:
    """One step in eager PyTorch, default memory layout.

    An edge network minimises Eq. 7 with distillation, a full network the cross entropy.
    """
    images, labels, server_logits = map(torch.from_numpy, (batch.images, batch.labels, batch.server_logits))
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


def ort_training_step(
    edge_network: str, batch: TrainingBatch, *, num_threads: int, folder: Path
) -> Callable[[], object]:
    """One step of what a device runs: ONNX Runtime's training engine on an exported bundle.

    Args:
        edge_network: ``resnet8`` and so on.
        batch: What to train on.
        num_threads: Threads of the engine.
        folder: A new folder, for the bundle; must outlive the step.

    Raises:
        ConfigError: The network cannot be exported.
    """
    options = ExportOptions(
        edge_network=edge_network,
        num_classes=batch.server_logits.shape[1],
        image_size=batch.images.shape[2],
        temperature=TEMPERATURE,
    )
    export_bundle(options, folder)
    backend = OrtTrainingBackend(load_bundle(folder), num_threads=num_threads, learning_rate=LEARNING_RATE)

    def step() -> Any:
        return backend.train_step(batch.images, batch.labels, batch.server_logits, ALPHA)

    return step


@contextlib.contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Let PyTorch compute with this many threads, and undo it."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
