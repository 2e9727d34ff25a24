"""FedAvg (McMahan et al., AISTATS 2017), Algorithm 1, with the large network on every device."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Unpack

from torch import Tensor, nn

from gkt_core.algorithms.base import (
    Algorithm,
    Networks,
    OnSamples,
    RoundResult,
    num_state_bytes,
    train_supervised,
)
from gkt_core.algorithms.simulation.federation import Federation, training_batches
from gkt_core.config.run_config import RunConfig
from gkt_core.nn.optimizers import large_network_optimizer


class FedAvg(Algorithm):
    """The baseline: every device trains all of ResNet-56, the server averages weights.

    Devices use ``edge_lr``, ``local_epochs`` and ``batch_size``.
    """

    def __init__(self, federation: Federation, config: RunConfig, **networks: Unpack[Networks]) -> None:
        super().__init__(federation, config, **networks)
        self._network = self._combined_network()

    def run_round(self, round_num: int, learning_rate_scale: float, on_samples: OnSamples) -> RoundResult:
        """Run ServerExecutes: the drawn devices train from the global weights, which become their mean."""
        config, federation = self._config, self._federation
        chosen = self._sample(round_num)
        num_examples = sum(len(federation.clients[client_id].train) for client_id in chosen)
        average = _WeightedMean()
        total_loss = 0.0
        for client_id in chosen:
            data = federation.clients[client_id]
            local = copy.deepcopy(self._network)
            # Devices begin each round with a fresh one.
            optimizer = large_network_optimizer(
                local.parameters(), config, config.edge_lr * learning_rate_scale
            )
            batches = training_batches(data.train, config, owner=client_id, round_num=round_num)
            hears = partial(on_samples, "devices")
            loss = train_supervised(local, optimizer, batches, hears, precision=config.precision)
            weight = len(data.train) / num_examples
            average.add(local.state_dict(), weight)
            total_loss += loss * weight
        self._network.load_state_dict(average.state(self._network.state_dict()))
        evaluation = self._validate(self._network)
        num_bytes = num_state_bytes(self._network) * len(chosen)
        return RoundResult(total_loss, evaluation.loss, evaluation.accuracy, num_bytes, num_bytes)

    def models(self) -> dict[str, nn.Module]:
        """Give the averaged network."""
        return {"global": self._network}


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
