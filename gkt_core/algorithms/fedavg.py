"""FedAvg (McMahan et al., AISTATS 2017), Algorithm 1, with the large network on every device."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gkt_core.algorithms.base import (
    Algorithm,
    Networks,
    OnSamples,
    RoundResult,
    SupervisedPlace,
    state_arrays,
)
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.algorithms.simulation.saving import Place
from gkt_core.algorithms.supervised_part import supervised_part
from gkt_core.config.run_config import RunConfig
from gkt_core.nn.building import CombinedNetwork
from gkt_core.nn.optimizers import large_network_optimizer
from gkt_core.rounds.learning_rate import LearningRate
from gkt_core.wire.weights import num_wire_bytes, send_weights


class FedAvg(Algorithm):
    """The baseline: every device trains all of ResNet-56, the server averages weights.

    Devices use ``edge_lr``, ``local_epochs`` and ``batch_size``. They receive the global weights in float32
    and answer in the config's ``codec``, of which all but ``fp32`` send the difference to what was received.
    Bytes are counted as they would travel, with Zstandard where the config compresses.
    """

    def __init__(self, federation: Federation, config: RunConfig, **networks: Unpack[Networks]) -> None:
        super().__init__(federation, config, **networks)
        self._network = self._combined_network()
        # What the device whose turn it is trains, and with what.
        self._local: tuple[CombinedNetwork, torch.optim.Optimizer] | None = None

    def run_round(self, round_num: int, learning_rate_scale: float, on_samples: OnSamples) -> RoundResult:
        """Run ServerExecutes: the drawn devices train from the global weights, which become their mean."""
        config, federation = self._config, self._federation
        chosen = self._sample(round_num)
        num_examples = sum(len(federation.clients[client_id].train) for client_id in chosen)
        left = self._left_at()
        rate = LearningRate.of_round(config, config.edge_lr * learning_rate_scale, round_num)
        average = _WeightedMean(left.arrays)
        done, total_loss = left.values.get("num_trained", 0), left.values.get("total_loss", 0.0)
        upload_bytes = left.values.get("upload_bytes", 0)
        received = state_arrays(self._network)
        download_bytes = num_wire_bytes(received, compressed=config.compress) * len(chosen)
        for number, client_id in enumerate(chosen[done:], done):
            data = federation.clients[client_id]
            # Devices begin each round with a fresh one; one that was left is as it was.
            local, optimizer = self._local or self._fresh()
            self._local = local, optimizer
            loss = supervised_part(
                local,
                optimizer,
                data.train,
                config,
                owner=client_id,
                round_num=round_num,
                on_samples=partial(on_samples, "devices"),
                saves=self.saves,
                place_of=partial(_place, average, number, total_loss, upload_bytes),
                begin=SupervisedPlace(**(left.values.get("training", {}) if number == done else {})),
                rate=rate,
                precision=config.precision,
                label_smoothing=config.label_smoothing,
            )
            self._local = None
            weight = len(data.train) / num_examples
            arrived, num_bytes = send_weights(
                state_arrays(local), config.codec, compressed=config.compress, received=received
            )
            average.add(arrived, weight)
            upload_bytes += num_bytes
            total_loss += loss * weight
        self._network.load_state_dict(average.state(self._network.state_dict()))
        evaluation = self._validate(self._network)
        return RoundResult(total_loss, evaluation.loss, evaluation.accuracy, upload_bytes, download_bytes)

    def _fresh(self) -> tuple[CombinedNetwork, torch.optim.Optimizer]:
        """Give a device the global weights, and an optimizer that has seen nothing."""
        local = copy.deepcopy(self._network)
        return local, large_network_optimizer(local.parameters(), self._config, self._config.edge_lr)

    def models(self) -> dict[str, nn.Module]:
        """Give the averaged network."""
        return {"global": self._network}

    def prepare(self, place: Place) -> None:
        """Make the network of the device whose turn it is in the middle of a round."""
        self._local = self._fresh() if place.values else None

    def modules(self) -> dict[str, nn.Module]:
        """Give the averaged network and, within a round, that of the device whose turn it is."""
        return {**self.models(), **({"local": self._local[0]} if self._local else {})}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Give the optimizer of that device."""
        return {"local": self._local[1]} if self._local else {}


def _place(
    average: _WeightedMean, num_trained: int, total_loss: float, upload_bytes: int, training: dict[str, Any]
) -> Place:
    """Say how far a round has come, in the middle of a device's training."""
    values = {
        "num_trained": num_trained,
        "total_loss": total_loss,
        "upload_bytes": upload_bytes,
        "training": training,
    }
    return Place(values, average.arrays())


class _WeightedMean:
    """Mean of state dicts, running statistics included, one device at a time."""

    def __init__(self, sums: Mapping[str, NDArray[np.generic]]) -> None:
        self._sums: dict[str, Tensor] = {name: torch.from_numpy(value) for name, value in sums.items()}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {name: value.cpu().numpy() for name, value in self._sums.items()}

    def add(self, arrays: Mapping[str, NDArray[np.float32]], weight: float) -> None:
        for name, value in arrays.items():
            term = torch.from_numpy(value).double() * weight
            self._sums[name] = self._sums[name] + term if name in self._sums else term

    def state(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: self._sums[name].to(v.device, v.dtype) if name in self._sums else v
            for name, v in like.items()
        }
