"""FedAvg (McMahan et al., AISTATS 2017), Algorithm 1, with the large network on every device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gkt_core.algorithms.base import RoundResult, evaluate_images, num_state_bytes, train_supervised
from gkt_core.algorithms.federation import Federation, training_batches
from gkt_core.config import RunConfig
from gkt_core.nn.networks import build_full_network


class FedAvg:
    """The baseline: every device trains all of ResNet-56, the server averages weights.

    Args:
        federation: The devices' data.
        config: Hyper-parameters; devices use ``edge_lr``, ``local_epochs`` and ``batch_size``.
        full_network: ``resnet56`` or ``resnet110``.
        device: Where networks live.
    """

    def __init__(
        self, federation: Federation, config: RunConfig, *, full_network: str, device: torch.device
    ) -> None:
        self._federation, self._config = federation, config
        network = build_full_network(
            full_network,
            federation.num_classes,
            pixel_mean=federation.pixel_mean,
            pixel_std=federation.pixel_std,
            seed=config.seed,
        )
        self._network: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run_round(self, round_num: int, on_samples: Callable[[str, int], None]) -> RoundResult:
        """ServerExecutes: every device trains from the global weights; their weighted mean is the next."""
        config, clients = self._config, self._federation.clients
        average = _WeightedMean()
        total_loss = 0.0
        for client_id, data in clients.items():
            local = copy.deepcopy(self._network)
            optimizer = torch.optim.Adam(
                local.parameters(), lr=config.edge_lr, weight_decay=config.weight_decay, amsgrad=True
            )
            loss = train_supervised(
                local,
                optimizer,
                training_batches(
                    data.train, config, owner=client_id, round_num=round_num, epochs=config.local_epochs
                ),
                lambda num: on_samples("devices", num),
            )
            weight = len(data.train) / self._federation.num_examples
            average.add(local.state_dict(), weight)
            total_loss += loss * weight
        self._network.load_state_dict(average.state(self._network.state_dict()))
        found = evaluate_images(self._network, self._federation.validation(), self._federation.num_classes)
        num_bytes = num_state_bytes(self._network) * len(clients)
        return RoundResult(total_loss, found.loss, found.accuracy, num_bytes, num_bytes)

    def models(self) -> dict[str, nn.Module]:
        """The averaged network."""
        return {"global": self._network}

    def modules(self) -> dict[str, nn.Module]:
        """The averaged network."""
        return self.models()

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """None: devices begin each round with a fresh optimizer."""
        return {}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """None."""
        return {}

    def restore_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Nothing to take back."""


class _WeightedMean:
    """Mean of state dicts, running statistics included, one device at a time."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, state: Mapping[str, Tensor], weight: float) -> None:
        for name, value in state.items():
            if value.is_floating_point():
                term = value.double() * weight
                self._sums[name] = self._sums[name] + term if name in self._sums else term

    def state(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self._sums[name].to(v.dtype) if name in self._sums else v for name, v in like.items()}
