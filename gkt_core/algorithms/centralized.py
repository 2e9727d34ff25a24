"""Centralised training: one network on everybody's data, the bound that no federation needs to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gkt_core.algorithms.base import RoundResult, evaluate_images, train_supervised
from gkt_core.algorithms.federation import Federation, join_samples, training_batches
from gkt_core.config import RunConfig
from gkt_core.networks import EDGE_NETWORKS
from gkt_core.nn.networks import build_edge_network, build_full_network


class Centralized:
    """ResNet-56/110, or an edge network alone, trained where all the data are.

    Args:
        federation: The devices' data, joined here.
        config: Hyper-parameters; a round is ``local_epochs`` epochs.
        network: ``resnet56``, ``resnet110``, ``resnet8`` and so on.
        device: Where the network lives.
    """

    def __init__(
        self, federation: Federation, config: RunConfig, *, network: str, device: torch.device
    ) -> None:
        self._federation, self._config = federation, config
        build = build_edge_network if network in EDGE_NETWORKS else build_full_network
        built: nn.Module = build(
            network,
            federation.num_classes,
            pixel_mean=federation.pixel_mean,
            pixel_std=federation.pixel_std,
            seed=config.seed,
        )
        self._network: nn.Module = built.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = torch.optim.Adam(
            self._network.parameters(),
            lr=config.server_lr,
            weight_decay=config.weight_decay,
            amsgrad=True,
        )
        self._samples = join_samples([data.train for data in federation.clients.values()])

    def run_round(self, round_num: int, on_samples: Callable[[str, int], None]) -> RoundResult:
        """``local_epochs`` epochs over all samples; nothing is sent."""
        data = training_batches(
            self._samples,
            self._config,
            owner="centralized",
            round_num=round_num,
            epochs=self._config.local_epochs,
        )
        loss = train_supervised(self._network, self._optimizer, data, lambda num: on_samples("server", num))
        found = evaluate_images(self._network, self._federation.validation(), self._federation.num_classes)
        return RoundResult(loss, found.loss, found.accuracy, 0, 0)

    def models(self) -> dict[str, nn.Module]:
        """The network."""
        return {"global": self._network}

    def modules(self) -> dict[str, nn.Module]:
        """The network."""
        return self.models()

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Its optimizer."""
        return {"global": self._optimizer}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """None."""
        return {}

    def restore_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Nothing to take back."""
