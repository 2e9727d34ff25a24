"""The server's half of Algorithm 1 (lines 6 to 13): what the trainer process and the simulation both call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gkt_core.algorithms.base import Evaluation
from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import batch_order, batches
from gkt_core.errors import GKTError
from gkt_core.nn.compiling import NOT_COMPILED, Compiler
from gkt_core.nn.execution import training_precision
from gkt_core.nn.losses import randomised_cross_entropy, response_chances, server_loss
from gkt_core.nn.optimizers import set_learning_rate
from gkt_core.nn.ranks import Ranks
from gkt_core.rounds.feature_source import FeatureBatch, ShardSource
from gkt_core.rounds.feature_views import FeatureViews
from gkt_core.rounds.learning_rate import LearningRate

_AS_THEY_ARE = FeatureViews()

# Samples that are evaluated at once, and bytes of their features: fewer of those of large images.
_MOST_EVALUATED, _EVALUATED_BYTES = 256, 256 * 65_536


class DivergedError(GKTError):
    """Training gave NaN or infinity."""


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
class ServerPlace:
    """How far the server's part of a round has come; with network and optimizer, all that resuming needs.

    Attributes:
        epoch: The epoch under way, from 1.
        num_batches: Batches of it that are done.
        total_loss: Sum of the losses of its samples so far.
        num_right: How many of them the network got right.
        server_logits: ``[N, classes] float32``: the soft labels of its samples so far, if it is the last.
    """

    epoch: int = 1
    num_batches: int = 0
    total_loss: float = 0.0
    num_right: int = 0
    server_logits: NDArray[np.float32] | None = None


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


def _batch_rows(source: ShardSource, config: RunConfig, round_num: int, epoch: int) -> list[NDArray[np.intp]]:
    """Make the batches of one epoch: over all samples, or device by device in random order."""
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
    source: ShardSource,
    config: RunConfig,
    *,
    round_num: int,
    num_classes: int,
    learning_rate: LearningRate | None = None,
    views: FeatureViews = _AS_THEY_ARE,
    begin: ServerPlace | None = None,
    on_batch: Callable[[ServerProgress], None] = lambda progress: None,
    on_place: Callable[[ServerPlace], None] = lambda place: None,
    ranks: Ranks | None = None,
    compiler: Compiler = NOT_COMPILED,
) -> ServerUpdate:
    """Train on everybody's features, then answer every sample with a soft label (lines 6 to 13).

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
        learning_rate: Of each step of the round; by default what the optimizer has.
        views: What is drawn of features, another view in every epoch; soft labels answer what was uploaded.
        begin: Where to go on, with the network and the optimizer as they were there; the numbers are those
            of a round that was never interrupted.
        on_batch: Called after each batch.
        on_place: Called with each place that can be gone on from: after each batch but an epoch's last, and
            at the beginning of each epoch but the first. Among several ranks only the latter can be.
        ranks: The processes that train this network together, each calling this; only this one by default.
        compiler: May make the pass forward in training faster, in one process.

    Raises:
        DivergedError: The loss is no longer finite.
    """
    device = next(network.parameters()).device
    num_samples = len(source.sample_ids)
    alpha = config.alpha if config.server_distils else 0.0
    ranks = ranks or Ranks()
    trained = ranks.trained(network)
    place = begin or ServerPlace()
    server_logits = _logits_so_far(place, num_samples, num_classes)
    started, num_done = time.perf_counter(), 0
    for epoch in range(place.epoch, config.server_epochs + 1):
        all_rows, is_last = _batch_rows(source, config, round_num, epoch), epoch == config.server_epochs
        place = place if place.epoch == epoch else ServerPlace(epoch)
        epoch_done = sum(map(len, all_rows[: place.num_batches]))
        for rows in all_rows[place.num_batches :]:
            share = ranks.share(rows)
            batch = source.gather(share.rows)
            viewed = views.draw(batch, source, share.rows, round_num, epoch)
            features, labels = _tensor(viewed, device), torch.from_numpy(batch.labels).to(device)
            network.train()
            optimizer.zero_grad(set_to_none=True)
            _set_rate(optimizer, learning_rate, config, epoch, place.num_batches, len(all_rows))
            forward = compiler.forward(trained, features) if ranks.size == 1 else trained
            with training_precision(config.precision, device):
                logits = forward(features)
            logits = logits.float()
            client_logits = torch.from_numpy(batch.client_logits).to(device)
            loss = share.weight * server_loss(
                logits,
                labels,
                client_logits,
                alpha,
                config.temperature,
                config.label_smoothing,
                _epsilons(batch, device),
            )
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            right = int((logits.argmax(dim=1) == labels).sum()) if share.counts else 0
            batch_loss, batch_right = ranks.sum_values([loss.item(), right])
            if not np.isfinite(batch_loss):
                raise DivergedError(
                    f"the server's loss is {batch_loss} in round {round_num}, epoch {epoch}: "
                    "training diverged, lower server_lr"
                )
            place = replace(
                place,
                num_batches=place.num_batches + 1,
                total_loss=place.total_loss + batch_loss * len(rows),
                num_right=place.num_right + int(batch_right),
                server_logits=server_logits if is_last else None,
            )
            num_done += len(rows)
            epoch_done += len(rows)
            if is_last and config.soft_labels == "last_epoch":
                ranks.average_statistics(network)
                if share.counts:
                    # In float32, as every evaluation: bfloat16 has three digits.
                    server_logits[share.rows] = _eval_logits(
                        network, features if viewed is batch.features else _features(batch, device)
                    )
            on_batch(
                ServerProgress(
                    epoch,
                    config.server_epochs,
                    epoch_done,
                    len(rows),
                    num_done / (time.perf_counter() - started),
                    batch_loss,
                )
            )
            if place.num_batches < len(all_rows):
                on_place(place)
        ranks.average_statistics(network)
        if not is_last:
            on_place(ServerPlace(epoch + 1))
    seconds = time.perf_counter() - started
    if config.soft_labels == "evaluation":
        parts = np.array_split(np.arange(num_samples), max(1, num_samples // config.server_batch_size))
        for rows in parts[ranks.rank :: ranks.size]:
            server_logits[rows] = _eval_logits(network, _features(source.gather(rows), device))
    server_logits = ranks.sum_array(server_logits)
    mean_loss, accuracy = place.total_loss / num_samples, place.num_right / num_samples
    return ServerUpdate(server_logits, mean_loss, accuracy, num_done / seconds)


def _set_rate(
    optimizer: torch.optim.Optimizer,
    learning_rate: LearningRate | None,
    config: RunConfig,
    epoch: int,
    batch: int,
    num_batches: int,
) -> None:
    """Set the rate of a batch, from 0, of an epoch, from 1."""
    if learning_rate is not None:
        step, num_steps = (epoch - 1) * num_batches + batch, config.server_epochs * num_batches
        set_learning_rate(optimizer, learning_rate.at(step, num_steps))


def _logits_so_far(place: ServerPlace, num_samples: int, num_classes: int) -> NDArray[np.float32]:
    logits = np.zeros((num_samples, num_classes), np.float32)
    if place.server_logits is not None:
        logits[:] = place.server_logits
    return logits


def evaluate(network: nn.Module, source: ShardSource) -> Evaluation:
    """Measure cross entropy and accuracy of the server network on features that devices extracted.

    Each sample went through its own device's extractor, so this is the accuracy of the combined models. Of
    randomised labels it is an estimate of what it is on the true ones.
    """
    device = next(network.parameters()).device
    num_samples = len(source.sample_ids)
    batch_size = min(_MOST_EVALUATED, source.samples_within(_EVALUATED_BYTES))
    total_loss, num_right, num_told = 0.0, 0.0, 0.0
    for begin in range(0, num_samples, batch_size):
        batch = source.gather(np.arange(begin, min(begin + batch_size, num_samples)))
        logits = torch.from_numpy(_eval_logits(network, _features(batch, device)))
        labels = torch.from_numpy(batch.labels)
        right = logits.argmax(dim=1) == labels
        epsilons = _epsilons(batch, torch.device("cpu"))
        if epsilons is None:
            total_loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            num_right += int(right.sum())
            num_told += len(labels)
            continue
        # How many would be right of the true labels: what chance makes right is taken off.
        kept, other = response_chances(epsilons, logits.shape[1])
        total_loss += randomised_cross_entropy(logits, labels, epsilons).sum().item()
        num_right += float((right.float() - other).sum())
        num_told += float((kept - other).sum())
    return Evaluation(total_loss / num_samples, min(1.0, max(0.0, num_right / num_told)))


def _epsilons(batch: FeatureBatch, device: torch.device) -> Tensor | None:
    if batch.label_epsilon is None:
        return None
    return torch.from_numpy(batch.label_epsilon.astype(np.float32)).to(device)


def _features(batch: FeatureBatch, device: torch.device) -> Tensor:
    return _tensor(batch.features, device)


def _tensor(features: NDArray[np.float32], device: torch.device) -> Tensor:
    return torch.from_numpy(features).to(device).contiguous(memory_format=torch.channels_last)


def _eval_logits(network: nn.Module, features: Tensor) -> NDArray[np.float32]:
    network.eval()
    with torch.no_grad():
        logits: Tensor = network(features)
    return np.asarray(logits.float().cpu().numpy())
