"""FedGKT (He, Annavaram, Avestimehr, NeurIPS 2020), Algorithm 1.

The server's half is here, and is what both the trainer process and the simulation call. The device's half
is :mod:`gkt_core.client_round`, the same for every engine. :class:`FedGKT` puts the two together for
simulations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gkt_core.algorithms.base import Evaluation, RoundResult
from gkt_core.algorithms.federation import Federation
from gkt_core.algorithms.torch_engine import TorchEngine
from gkt_core.algorithms.uploads import Uploads
from gkt_core.augment import batch_order, batches
from gkt_core.client_round import client_update, extract
from gkt_core.config import RunConfig
from gkt_core.errors import GKTError
from gkt_core.feature_source import FeatureBatch, FeatureSource, split_by_client
from gkt_core.networks import feature_shape
from gkt_core.nn.losses import server_loss
from gkt_core.nn.networks import CombinedNetwork, build_edge_network, build_server_network
from gkt_core.shards import (
    ShardKey,
    ShardSpec,
    SoftLabels,
    write_soft_labels,
)


@dataclass(frozen=True, slots=True)
class ServerProgress:
    """How far the server is in its part of a round."""

    epoch: int
    epochs: int
    num_samples: int
    batch_samples: int
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


def server_optimizer(network: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """Adam with AMSGrad, or SGD with Nesterov momentum, both with L2 weight decay (Appendix B.4)."""
    if config.server_optimizer == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            lr=config.server_lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=True,
        )
    return torch.optim.Adam(
        network.parameters(), lr=config.server_lr, weight_decay=config.weight_decay, amsgrad=True
    )


def reduce_on_plateau(
    optimizer: torch.optim.Optimizer, config: RunConfig, validation_accuracies: Sequence[float]
) -> float:
    """Set the server's learning rate from all validation accuracies so far (section 4.1).

    A function of the history, not of a scheduler's state: a resumed run gets the same rate.

    Args:
        optimizer: Changed.
        config: ``plateau_patience``, ``plateau_factor``, ``server_lr``.
        validation_accuracies: One a finished round, oldest first.

    Returns:
        The learning rate.
    """
    rate, best, waited = config.server_lr, -1.0, 0
    for accuracy in validation_accuracies if config.plateau_patience else ():
        best, waited = (accuracy, 0) if accuracy > best else (best, waited + 1)
        if waited >= config.plateau_patience:
            rate, waited = rate * config.plateau_factor, 0
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _batch_rows(
    source: FeatureSource, config: RunConfig, round_num: int, epoch: int
) -> list[NDArray[np.intp]]:
    """The batches of one epoch: over all samples, or device by device in random order."""
    size = config.server_batch_size
    order = batch_order(len(source.sample_ids), seed=config.seed, round_num=round_num, epoch=epoch)
    if config.batch_mixing == "mixed":
        return batches(order, size)
    owners = source.owners[order]
    clients = owners[np.sort(np.unique(owners, return_index=True)[1])]
    return [rows for client in clients for rows in batches(order[owners == client], size)]


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

    Batches are mixed across devices by default. With ``soft_labels = "last_epoch"`` each batch of the last
    epoch is passed forward once more after its update (line 11), in eval mode, so that a sample's soft
    label does not depend on which others shared its batch.

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
    device = next(network.parameters()).device
    num_samples = len(source.sample_ids)
    alpha = config.alpha if config.server_distils else 0.0
    server_logits = np.empty((num_samples, num_classes), np.float32)
    started, num_done = time.perf_counter(), 0
    total_loss, num_right = 0.0, 0
    for epoch in range(1, config.server_epochs + 1):
        total_loss, num_right, epoch_done = 0.0, 0, 0
        for rows in _batch_rows(source, config, round_num, epoch):
            batch = source.gather(rows)
            features, labels = _features(batch, device), torch.from_numpy(batch.labels).to(device)
            network.train()
            optimizer.zero_grad(set_to_none=True)
            logits = network(features)
            client_logits = torch.from_numpy(batch.client_logits).to(device)
            loss = server_loss(logits, labels, client_logits, alpha, config.temperature)
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
            on_batch(ServerProgress(epoch, config.server_epochs, epoch_done, len(rows), rate, batch_loss))
    seconds = time.perf_counter() - started
    if config.soft_labels == "evaluation":
        for rows in np.array_split(np.arange(num_samples), max(1, num_samples // config.server_batch_size)):
            server_logits[rows] = _eval_logits(network, _features(source.gather(rows), device))
    return ServerUpdate(server_logits, total_loss / num_samples, num_right / num_samples, num_done / seconds)


def evaluate(network: nn.Module, source: FeatureSource, *, batch_size: int = 256) -> Evaluation:
    """Cross entropy and accuracy of the server network on features that devices extracted.

    Each sample went through its own device's extractor, so this is the accuracy of the combined models.
    """
    device = next(network.parameters()).device
    num_samples = len(source.sample_ids)
    total_loss, num_right = 0.0, 0
    for begin in range(0, num_samples, batch_size):
        batch = source.gather(np.arange(begin, min(begin + batch_size, num_samples)))
        logits = torch.from_numpy(_eval_logits(network, _features(batch, device)))
        labels = torch.from_numpy(batch.labels)
        total_loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        num_right += int((logits.argmax(dim=1) == labels).sum())
    return Evaluation(total_loss / num_samples, num_right / num_samples)


def _features(batch: FeatureBatch, device: torch.device) -> Tensor:
    return torch.from_numpy(batch.features).to(device).contiguous(memory_format=torch.channels_last)


def _eval_logits(network: nn.Module, features: Tensor) -> NDArray[np.float32]:
    network.eval()
    with torch.no_grad():
        logits: Tensor = network(features)
    return np.asarray(logits.cpu().numpy())


class FedGKT:
    """Algorithm 1 in one process: :class:`gkt_core.algorithms.base.Algorithm`.

    Features, logits and labels pass through the shard format of the wire, so that a simulation sees the
    codec's rounding and counts the bytes that devices would send.

    Args:
        federation: The devices' data.
        config: Hyper-parameters.
        edge_network: The devices' network, ``resnet8`` and so on.
        server_network: ``resnet55`` or ``resnet109``.
        device: Where networks live.
        shard_folder: Keep a round's features in files of this folder instead of memory.
    """

    def __init__(
        self,
        federation: Federation,
        config: RunConfig,
        *,
        edge_network: str,
        server_network: str,
        device: torch.device,
        shard_folder: Path | None = None,
    ) -> None:
        self._federation, self._config, self._shard_folder = federation, config, shard_folder
        pixels = {"pixel_mean": federation.pixel_mean, "pixel_std": federation.pixel_std}
        # All devices start from the same weights, as they do when they download one bundle.
        self._engines = {
            client_id: TorchEngine(
                build_edge_network(edge_network, federation.num_classes, seed=config.seed, **pixels).to(
                    device
                ),
                config,
            )
            for client_id in federation.clients
        }
        self._server = build_server_network(server_network, federation.num_classes, seed=config.seed)
        self._server = self._server.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = server_optimizer(self._server, config)
        self._soft_labels: dict[str, SoftLabels] = {}
        self._validation_accuracies: list[float] = []
        self._spec = ShardSpec(
            config.codec, feature_shape(federation.image_size), federation.num_classes, config.shard_samples
        )

    def run_round(self, round_num: int, on_samples: Callable[[str, int], None]) -> RoundResult:
        """Lines 2 to 16 of Algorithm 1."""
        config, clients = self._config, self._federation.clients
        download_bytes = sum(
            len(write_soft_labels(client_id, round_num - 1, soft_labels))
            for client_id, soft_labels in self._soft_labels.items()
            if config.edge_distils
        )
        uploads = Uploads(self._spec, config, self._shard_folder)
        for client_id, data in clients.items():
            engine = self._engines[client_id]
            client_update(
                engine,
                data.train,
                self._soft_labels.get(client_id),
                config,
                client_id=client_id,
                round_num=round_num,
                num_classes=self._federation.num_classes,
                on_batch=lambda num: on_samples("devices", num),
            )
            views = {"train": (data.train, round_num), "validation": (data.validation, None)}
            for split, (samples, view_round) in views.items():
                parts = extract(engine, samples, config, client_id=client_id, view_round=view_round)
                for index, part in enumerate(parts):
                    uploads.send(ShardKey(client_id, round_num, split, index), part)
        reduce_on_plateau(self._optimizer, config, self._validation_accuracies)
        source = uploads.source("train")
        update = server_update(
            self._server,
            self._optimizer,
            source,
            config,
            round_num=round_num,
            num_classes=self._federation.num_classes,
            on_batch=lambda progress: on_samples("server", progress.batch_samples),
        )
        self._soft_labels = split_by_client(source, update.server_logits)
        evaluation = evaluate(self._server, uploads.source("validation"))
        self._validation_accuracies.append(evaluation.accuracy)
        return RoundResult(
            update.loss, evaluation.loss, evaluation.accuracy, uploads.num_bytes, download_bytes
        )

    def models(self) -> dict[str, nn.Module]:
        """Each device's extractor with the server network."""
        return {
            client_id: CombinedNetwork(engine.network.extractor, self._server, engine.network.normalise)
            for client_id, engine in self._engines.items()
        }

    def edge_models(self) -> dict[str, nn.Module]:
        """Each device's own network, extractor and local head."""
        return {client_id: engine.network for client_id, engine in self._engines.items()}

    def modules(self) -> dict[str, nn.Module]:
        """Server and edge networks."""
        return {"server": self._server, **self.edge_models()}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Theirs."""
        return {"server": self._optimizer, **{name: e.optimizer for name, e in self._engines.items()}}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The soft labels that the next round trains with, and what the learning rate depends on."""
        arrays: dict[str, NDArray[np.generic]] = {
            "validation_accuracies": np.asarray(self._validation_accuracies)
        }
        for client_id, soft_labels in self._soft_labels.items():
            arrays[f"{client_id}/sample_ids"] = soft_labels.sample_ids
            arrays[f"{client_id}/server_logits"] = soft_labels.server_logits
        return arrays

    def restore_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take them back."""
        self._validation_accuracies = arrays["validation_accuracies"].tolist()
        self._soft_labels = {
            client_id: SoftLabels(
                arrays[f"{client_id}/sample_ids"].astype(np.int64),
                arrays[f"{client_id}/server_logits"].astype(np.float32),
            )
            for client_id in self._federation.clients
            if f"{client_id}/sample_ids" in arrays
        }
