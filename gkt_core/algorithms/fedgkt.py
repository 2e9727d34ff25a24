"""FedGKT (He, Annavaram, Avestimehr, NeurIPS 2020), Algorithm 1.

The server's half is here, and is what both the trainer process and the simulation call. The device's half
is :mod:`gkt_core.client_round`, the same for every engine; :class:`TorchEngine` runs it in PyTorch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gkt_core.augment import batch_order, batches
from gkt_core.config import RunConfig
from gkt_core.errors import GKTError
from gkt_core.feature_source import FeatureBatch, FeatureSource
from gkt_core.nn.losses import edge_loss, server_loss
from gkt_core.nn.networks import EdgeNetwork


@dataclass(frozen=True, slots=True)
class ServerProgress:
    """How far the server is in its part of a round."""

    epoch: int
    epochs: int
    num_samples: int
    samples_per_second: float
    loss: float


@dataclass(frozen=True, slots=True)
class ServerUpdate:
    """The server's part of one round.

    Attributes:
        server_logits: ``[N, classes] float32``, raw, in the canonical order of the source.
        loss: Mean training loss of the last epoch.
        accuracy: Training accuracy of the last epoch, 0..1.
        samples_per_second: Training throughput over all epochs.
    """

    server_logits: NDArray[np.float32]
    loss: float
    accuracy: float
    samples_per_second: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean cross entropy and accuracy (0..1) on samples that were not trained on."""

    loss: float
    accuracy: float


def server_optimizer(network: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """Adam with L2 weight decay and AMSGrad (Appendix B.4)."""
    return torch.optim.Adam(
        network.parameters(), lr=config.server_lr, weight_decay=config.weight_decay, amsgrad=True
    )


def server_update(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    source: FeatureSource,
    config: RunConfig,
    *,
    round_num: int,
    num_classes: int,
    on_batch: Callable[[ServerProgress], None] = lambda progress: None,
) -> ServerUpdate:
    """Lines 6 to 13: train on everybody's features, then answer every sample with a soft label.

    Batches are mixed across devices. With ``soft_labels = "last_epoch"`` each batch of the last epoch is
    passed forward once more after its update (line 11), in eval mode, so that a sample's soft label does
    not depend on which others shared its batch.

    Args:
        network: The server network f_s; trained in place.
        optimizer: Its optimizer; carries its state over rounds.
        source: Features, device logits and labels of all devices.
        config: Hyper-parameters.
        round_num: t, from 1.
        num_classes: Width of the logits.
        on_batch: Called after each batch.

    Raises:
        GKTError: The loss is no longer finite.
    """
    num_samples = len(source.sample_ids)
    alpha = config.alpha if config.server_distils else 0.0
    server_logits = np.empty((num_samples, num_classes), np.float32)
    started, num_done = time.perf_counter(), 0
    total_loss, num_right = 0.0, 0
    for epoch in range(1, config.server_epochs + 1):
        total_loss, num_right, epoch_done = 0.0, 0, 0
        order = batch_order(num_samples, seed=config.seed, round_num=round_num, epoch=epoch)
        for rows in batches(order, config.server_batch_size):
            batch = source.gather(rows)
            features, labels = _features(batch), torch.from_numpy(batch.labels)
            network.train()
            optimizer.zero_grad(set_to_none=True)
            logits = network(features)
            loss = server_loss(
                logits, labels, torch.from_numpy(batch.client_logits), alpha, config.temperature
            )
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            batch_loss = loss.item()
            if not np.isfinite(batch_loss):
                raise GKTError(
                    f"the server's loss is {batch_loss} in round {round_num}, epoch {epoch}: "
                    "training diverged, lower server_lr"
                )
            total_loss += batch_loss * len(rows)
            num_right += int((logits.argmax(dim=1) == labels).sum())
            num_done += len(rows)
            epoch_done += len(rows)
            if epoch == config.server_epochs and config.soft_labels == "last_epoch":
                server_logits[rows] = _eval_logits(network, features)
            rate = num_done / (time.perf_counter() - started)
            on_batch(ServerProgress(epoch, config.server_epochs, epoch_done, rate, batch_loss))
    seconds = time.perf_counter() - started
    if config.soft_labels == "evaluation":
        for rows in np.array_split(np.arange(num_samples), max(1, num_samples // config.server_batch_size)):
            server_logits[rows] = _eval_logits(network, _features(source.gather(rows)))
    return ServerUpdate(server_logits, total_loss / num_samples, num_right / num_samples, num_done / seconds)


def evaluate(network: nn.Module, source: FeatureSource, *, batch_size: int = 256) -> Evaluation:
    """Cross entropy and accuracy of the server network on features that devices extracted.

    Each sample went through its own device's extractor, so this is the accuracy of the combined models.
    """
    num_samples = len(source.sample_ids)
    total_loss, num_right = 0.0, 0
    for begin in range(0, num_samples, batch_size):
        batch = source.gather(np.arange(begin, min(begin + batch_size, num_samples)))
        logits = torch.from_numpy(_eval_logits(network, _features(batch)))
        labels = torch.from_numpy(batch.labels)
        total_loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        num_right += int((logits.argmax(dim=1) == labels).sum())
    return Evaluation(total_loss / num_samples, num_right / num_samples)


def _features(batch: FeatureBatch) -> Tensor:
    return torch.from_numpy(batch.features).contiguous(memory_format=torch.channels_last)


def _eval_logits(network: nn.Module, features: Tensor) -> NDArray[np.float32]:
    network.eval()
    with torch.no_grad():
        logits: Tensor = network(features)
    return np.asarray(logits.numpy())


class TorchEngine:
    """A :class:`gkt_core.client_round.TrainingEngine` in PyTorch: a simulated device."""

    def __init__(self, network: EdgeNetwork, config: RunConfig) -> None:
        self.network = network
        self.temperature = config.temperature
        self.optimizer = torch.optim.Adam(network.parameters(), lr=config.edge_lr)

    def train_step(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        server_logits: NDArray[np.float32],
        alpha: float,
    ) -> tuple[float, NDArray[np.float32]]:
        """Minimise Eq. 7 on one batch; see the protocol."""
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        _, logits = self.network(torch.from_numpy(images))
        teacher = torch.from_numpy(np.ascontiguousarray(server_logits))
        loss = edge_loss(logits, torch.from_numpy(labels), teacher, alpha, self.temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item(), np.asarray(logits.detach().numpy())

    def predict(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features and logits in eval mode."""
        self.network.eval()
        with torch.no_grad():
            features, logits = self.network(torch.from_numpy(images))
        return np.asarray(features.numpy()), np.asarray(logits.numpy())
