"""FedAvg (McMahan et al., AISTATS 2017), Algorithm 1, with the large network on every device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from gkt_core.algorithms.base import (
    Algorithm,
    RoundResult,
    evaluate_images,
    num_state_bytes,
    train_supervised,
)
from gkt_core.algorithms.simulation.federation import Federation, training_batches
from gkt_core.config.run_config import RunConfig
from gkt_core.nn.building import build_combined_network
from gkt_core.nn.optimizers import large_network_optimizer
from gkt_core.rounds.sampling import sample_clients


class FedAvg(Algorithm):
    """The baseline: every device trains all of ResNet-56, the server averages weights.

    Args:
        federation: The devices' data.
        config: Hyper-parameters; devices use ``edge_lr``, ``local_epochs`` and ``batch_size``.
        edge_network: Whose extractor is the beginning of the large network.
        server_network: What comes after it; ``resnet55`` makes ResNet-56.
        device: Where networks live.
    """

    def __init__(
        self,
        federation: Federation,
        config: RunConfig,
        *,
        edge_network: str,
        server_network: str,
        device: torch.device,
    ) -> None:
        self._federation, self._config = federation, config
        network = build_combined_network(
            edge_network, server_network, federation.num_classes, **federation.pixels, seed=config.seed
        )
        self._network: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run_round(
        self, round_num: int, learning_rate_scale: float, on_samples: Callable[[str, int], None]
    ) -> RoundResult:
        """Run ServerExecutes: the drawn devices train from the global weights, which become their mean."""
        config, federation = self._config, self._federation
        chosen = sample_clients(
            list(federation.clients), config.client_fraction, seed=config.seed, round_num=round_num
        )
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
            loss = train_supervised(
                local,
                optimizer,
                training_batches(
                    data.train, config, owner=client_id, round_num=round_num, epochs=config.local_epochs
                ),
                lambda num: on_samples("devices", num),
                precision=config.precision,
            )
            weight = len(data.train) / num_examples
            average.add(local.state_dict(), weight)
            total_loss += loss * weight
        self._network.load_state_dict(average.state(self._network.state_dict()))
        evaluation = evaluate_images(self._network, federation.validation(), federation.num_classes)
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
