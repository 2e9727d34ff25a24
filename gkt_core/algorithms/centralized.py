"""Centralised training: one network on everybody's data, the bound that no federation needs to beat."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from gkt_core.algorithms.base import Algorithm, RoundResult, evaluate_images, train_supervised
from gkt_core.algorithms.simulation.federation import Federation, join_samples, training_batches
from gkt_core.config.run_config import RunConfig
from gkt_core.networks import FULL_NETWORKS
from gkt_core.nn.building import build_combined_network, build_edge_network, build_full_network
from gkt_core.nn.optimizers import large_network_optimizer, set_learning_rate


class Centralized(Algorithm):
    """ResNet-56/110, or an edge network alone, trained where all the data are.

    Args:
        federation: The devices' data, joined here.
        config: Hyper-parameters; a round is ``local_epochs`` epochs.
        edge_network: Whose extractor is the beginning of the large network.
        server_network: What comes after it.
        network: Train this instead of the two: ``resnet8`` and so on.
        device: Where the network lives.
    """

    def __init__(
        self,
        federation: Federation,
        config: RunConfig,
        *,
        edge_network: str,
        server_network: str,
        device: torch.device,
        network: str | None = None,
    ) -> None:
        self._federation, self._config = federation, config
        pixels, num_classes, built = federation.pixels, federation.num_classes, nn.Module()
        if network is None:
            built = build_combined_network(
                edge_network, server_network, num_classes, **pixels, seed=config.seed
            )
        elif network in FULL_NETWORKS:
            built = build_full_network(network, num_classes, **pixels, seed=config.seed)
        else:
            built = build_edge_network(network, num_classes, **pixels, seed=config.seed)
        self._network: nn.Module = built.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = large_network_optimizer(self._network.parameters(), config, config.server_lr)
        self._samples = join_samples([data.train for data in federation.clients.values()])

    def run_round(
        self, round_num: int, learning_rate_scale: float, on_samples: Callable[[str, int], None]
    ) -> RoundResult:
        """Train ``local_epochs`` epochs over all samples; nothing is sent."""
        set_learning_rate(self._optimizer, self._config.server_lr * learning_rate_scale)
        data = training_batches(
            self._samples,
            self._config,
            owner="centralized",
            round_num=round_num,
            epochs=self._config.local_epochs,
        )
        loss = train_supervised(
            self._network,
            self._optimizer,
            data,
            lambda num: on_samples("server", num),
            precision=self._config.precision,
        )
        evaluation = evaluate_images(
            self._network, self._federation.validation(), self._federation.num_classes
        )
        return RoundResult(loss, evaluation.loss, evaluation.accuracy, 0, 0)

    def models(self) -> dict[str, nn.Module]:
        """Give the network that was trained."""
        return {"global": self._network}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Give the optimizer of that network."""
        return {"global": self._optimizer}
