"""FedGKT (He, Annavaram, Avestimehr, NeurIPS 2020), Algorithm 1.

The server's half is here, and is what both the trainer process and the simulation call. The device's half
is :mod:`gkt_core.rounds.client_round`, the same for every engine. :class:`FedGKT` puts the two together for
simulations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gkt_core.algorithms.base import Evaluation, RoundResult
from gkt_core.algorithms.simulation.client import SimulatedClient
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.algorithms.simulation.grouped_training import GroupedTraining
from gkt_core.algorithms.simulation.torch_engine import TorchEngine
from gkt_core.algorithms.simulation.uploads import Uploads
from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import batch_order, batches
from gkt_core.errors import GKTError
from gkt_core.nn.building import (
    CombinedNetwork,
    EdgeNetwork,
    build_edge_network,
    build_server_network,
    feature_shape,
)
from gkt_core.nn.execution import training_precision
from gkt_core.nn.initial_weights import InitialWeights
from gkt_core.nn.losses import server_loss
from gkt_core.nn.optimizers import large_network_optimizer, set_learning_rate
from gkt_core.nn.ranks import OneProcess, Ranks
from gkt_core.rounds.client_part import ClientPart, client_seed
from gkt_core.rounds.feature_source import FeatureBatch, FeatureSource, split_by_client
from gkt_core.rounds.sampling import sample_clients
from gkt_core.wire.feature_noise import FeatureNoise, simulated_key
from gkt_core.wire.shards import ShardSpec


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
    first_epoch: int = 1,
    on_batch: Callable[[ServerProgress], None] = lambda progress: None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
    ranks: Ranks | None = None,
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
        first_epoch: Where to go on, with the network and the optimizer as they were after the epoch before;
            the numbers are those of a round that was never interrupted.
        on_batch: Called after each batch.
        on_epoch: Called with the number of each epoch that is done, but the last.
        ranks: The processes that train this network together, each calling this; only this one by default.

    Raises:
        GKTError: The loss is no longer finite.
    """
    device = next(network.parameters()).device
    num_samples = len(source.sample_ids)
    alpha = config.alpha if config.server_distils else 0.0
    ranks = ranks or OneProcess()
    trained = ranks.trained(network)
    server_logits = np.zeros((num_samples, num_classes), np.float32)
    started, num_done = time.perf_counter(), 0
    total_loss, num_right = 0.0, 0
    for epoch in range(first_epoch, config.server_epochs + 1):
        total_loss, num_right, epoch_done = 0.0, 0, 0
        for rows in _batch_rows(source, config, round_num, epoch):
            share = ranks.share(rows)
            batch = source.gather(share.rows)
            features, labels = _features(batch, device), torch.from_numpy(batch.labels).to(device)
            network.train()
            optimizer.zero_grad(set_to_none=True)
            with training_precision(config.precision, device):
                logits = trained(features)
            logits = logits.float()
            client_logits = torch.from_numpy(batch.client_logits).to(device)
            loss = share.weight * server_loss(logits, labels, client_logits, alpha, config.temperature)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            right = int((logits.argmax(dim=1) == labels).sum()) if share.counts else 0
            batch_loss, batch_right = ranks.sum_values([loss.item(), right])
            if not np.isfinite(batch_loss):
                raise GKTError(
                    f"the server's loss is {batch_loss} in round {round_num}, epoch {epoch}: "
                    "training diverged, lower server_lr"
                )
            total_loss += batch_loss * len(rows)
            num_right += int(batch_right)
            num_done += len(rows)
            epoch_done += len(rows)
            if epoch == config.server_epochs and config.soft_labels == "last_epoch":
                ranks.average_statistics(network)
                if share.counts:
                    with training_precision(config.precision, device):
                        server_logits[share.rows] = _eval_logits(network, features)
            rate = num_done / (time.perf_counter() - started)
            on_batch(ServerProgress(epoch, config.server_epochs, epoch_done, len(rows), rate, batch_loss))
        ranks.average_statistics(network)
        if epoch < config.server_epochs:
            on_epoch(epoch)
    seconds = time.perf_counter() - started
    if config.soft_labels == "evaluation":
        parts = np.array_split(np.arange(num_samples), max(1, num_samples // config.server_batch_size))
        for rows in parts[ranks.rank :: ranks.size]:
            server_logits[rows] = _eval_logits(network, _features(source.gather(rows), device))
    server_logits = ranks.sum_array(server_logits)
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
    return np.asarray(logits.float().cpu().numpy())


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
        initial_weights: What to begin from instead of random weights.
        grouped: Train all devices at once, for GPUs, instead of one after another.
        noise: What devices do to features before they send them.
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
        initial_weights: InitialWeights | None = None,
        grouped: bool = False,
        noise: FeatureNoise | None = None,
    ) -> None:
        self._federation, self._config, self._shard_folder = federation, config, shard_folder
        noise, weights = noise or FeatureNoise(), initial_weights or InitialWeights()
        self._clients: dict[str, SimulatedClient] = {}
        for client_id, data in federation.clients.items():
            # Devices that download one bundle begin from the same weights.
            seed = config.seed if config.shared_init else client_seed(config.seed, client_id)
            network = build_edge_network(
                edge_network,
                federation.num_classes,
                pixel_mean=federation.pixel_mean,
                pixel_std=federation.pixel_std,
                seed=seed,
            )
            weights.fill_edge(network)
            engine = TorchEngine(network.to(device), config)
            own_noise = replace(noise, key=simulated_key(config.seed, client_id))
            part = ClientPart(client_id, data, config, federation.num_classes, own_noise)
            self._clients[client_id] = SimulatedClient(part, engine)
        self._grouped = GroupedTraining(list(self._clients.values()), config) if grouped else None
        self._server = build_server_network(server_network, federation.num_classes, seed=config.seed)
        weights.fill_server(self._server)
        self._server = self._server.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = large_network_optimizer(self._server.parameters(), config, config.server_lr)
        shape = feature_shape(next(iter(self._clients.values())).engine.network, federation.image_size)
        self._spec = ShardSpec(config.codec, shape, federation.num_classes, config.shard_samples)

    def run_round(
        self, round_num: int, learning_rate_scale: float, on_samples: Callable[[str, int], None]
    ) -> RoundResult:
        """Lines 2 to 16 of Algorithm 1."""
        config = self._config
        chosen = sample_clients(
            list(self._clients), config.client_fraction, seed=config.seed, round_num=round_num
        )
        download_bytes = sum(self._clients[client_id].download_bytes for client_id in chosen)
        uploads = Uploads(self._spec, config, self._shard_folder)
        if self._grouped is not None:
            self._grouped.train(
                chosen, round_num, learning_rate_scale, lambda num: on_samples("devices", num)
            )
        for client_id in chosen:
            client = self._clients[client_id]
            if self._grouped is None:
                client.train(round_num, learning_rate_scale, lambda num: on_samples("devices", num))
            client.upload(round_num, uploads)
        loss = self._train(uploads.source("train"), round_num, learning_rate_scale, on_samples)
        found = evaluate(self._server, uploads.source("validation"))
        return RoundResult(loss, found.loss, found.accuracy, uploads.num_bytes, download_bytes)

    def _train(
        self,
        source: FeatureSource,
        round_num: int,
        learning_rate_scale: float,
        on_samples: Callable[[str, int], None],
    ) -> float:
        """The server's part: train on what was uploaded, answer with soft labels; the loss."""
        set_learning_rate(self._optimizer, self._config.server_lr * learning_rate_scale)
        update = server_update(
            self._server,
            self._optimizer,
            source,
            self._config,
            round_num=round_num,
            num_classes=self._federation.num_classes,
            on_batch=lambda progress: on_samples("server", progress.batch_samples),
        )
        for client_id, soft_labels in split_by_client(source, update.server_logits).items():
            self._clients[client_id].receive(soft_labels)
        return update.loss

    def models(self) -> dict[str, nn.Module]:
        """Each device's extractor with the server network."""
        return {
            client_id: CombinedNetwork(network.extractor, self._server, network.normalise)
            for client_id, network in self.edge_models().items()
        }

    def edge_models(self) -> dict[str, EdgeNetwork]:
        """Each device's own network, extractor and local head."""
        return {client_id: client.engine.network for client_id, client in self._clients.items()}

    def modules(self) -> dict[str, nn.Module]:
        """Server and edge networks."""
        return {"server": self._server, **self.edge_models()}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Theirs."""
        edges = {client_id: client.engine.optimizer for client_id, client in self._clients.items()}
        return {"server": self._optimizer, **edges}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What devices remember, such as the soft labels that they train with next."""
        return {
            f"{client_id}/{name}": array
            for client_id, client in self._clients.items()
            for name, array in client.arrays().items()
        }

    def restore_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take them back."""
        for client_id, client in self._clients.items():
            prefix = f"{client_id}/"
            client.restore_arrays(
                {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
            )
