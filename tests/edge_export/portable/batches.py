"""Random batches, and the exact gradient that a step is held to."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from gkt_core.nn import EdgeNetwork, edge_loss
from gkt_core.nn.building import example_images

Batch = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]


def batch_of(num: int, size: int = 16, classes: int = 10, seed: int = 0) -> Batch:
    """Images, labels and soft labels."""
    rng = np.random.default_rng(seed)
    images = example_images(num, size, seed=seed).numpy()
    return images, rng.integers(classes, size=num), rng.standard_normal((num, classes)).astype(np.float32)


def exact_loss(network: EdgeNetwork, batch: Batch, alpha: float = 1.0) -> tuple[float, torch.Tensor]:
    """Loss and logits in float64; gradients are left at the network's parameters."""
    images, labels, teacher = batch
    _, logits = network.double()(torch.from_numpy(images).double())
    loss = edge_loss(logits, torch.from_numpy(labels), torch.from_numpy(teacher).double(), alpha, 3.0)
    torch.autograd.backward(loss)
    return loss.item(), logits


def gradient_of(parameter: torch.nn.Parameter) -> NDArray[np.float64]:
    """What :func:`exact_loss` left."""
    assert parameter.grad is not None
    return np.asarray(parameter.grad.numpy(), dtype=np.float64)
