"""Split learning (Gupta and Raskar 2018; Vepakomma et al. 2018), cut where ResNet-8's extractor ends.

Section 4.1 of the FedGKT paper: the device holds the extractor (464 parameters), the server ResNet-55 or
ResNet-109. Every batch crosses the network twice: features up, their gradients down. Devices take turns
and hand the extractor on to the next, as in the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from gkt_core.algorithms.base import Algorithm, Networks, OnSamples, RoundResult, state_wire_bytes
from gkt_core.algorithms.simulation.federation import (
    Federation,
    num_epoch_batches,
    training_batches,
    training_rates,
)
from gkt_core.algorithms.simulation.saving import Place
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import GKTError
from gkt_core.nn.execution import training_precision
from gkt_core.nn.optimizers import large_network_optimizer, set_learning_rate
from gkt_core.rounds.learning_rate import LearningRate
from gkt_core.wire.weights import num_wire_bytes


class SplitLearning(Algorithm):
    """One network cut in two; gradients travel with every batch.

    A round is ``local_epochs`` epochs of each device in turn.
    """

    def __init__(self, federation: Federation, config: RunConfig, **networks: Unpack[Networks]) -> None:
        super().__init__(federation, config, **networks)
        self._network = self._combined_network()
        self._rates = {"device": config.edge_lr, "server": config.server_lr}
        self._optimizers = {
            name: large_network_optimizer(module.parameters(), config, self._rates[name])
            for name, module in (("device", self._network.extractor), ("server", self._network.server))
        }

    def run_round(self, round_num: int, learning_rate_scale: float, on_samples: OnSamples) -> RoundResult:
        """Train each device in turn: a batch goes forward here, forward and backward there, backward here."""
        config = self._config
        left = self._left_at().values
        total_loss, upload_bytes = left.get("total_loss", 0.0), left.get("upload_bytes", 0)
        download_bytes, done = left.get("download_bytes", 0), left.get("num_trained", 0)
        rates = {
            name: LearningRate.of_round(config, base * learning_rate_scale, round_num)
            for name, base in self._rates.items()
        }
        self._network.train()
        clients = self._federation.clients
        chosen = self._sample(round_num)
        for place, client_id in enumerate(chosen[done:], done):
            data, skip = clients[client_id], left.get("num_batches", 0) if place == done else 0
            if not skip:
                # The extractor comes from the device before, through the server.
                extractor_bytes = state_wire_bytes(self._network.extractor, compressed=config.compress)
                upload_bytes += extractor_bytes
                download_bytes += extractor_bytes
            last_epoch = (config.local_epochs - 1) * len(data.train)
            num_seen = left["num_seen"] if skip else 0
            each = num_epoch_batches(data.train, config)
            batches = training_batches(data.train, config, owner=client_id, round_num=round_num, skip=skip)
            # Devices take turns, and a round is over when the last one has had its.
            turns = {
                name: training_rates(data.train, config, rate.part(place, len(chosen)))
                for name, rate in rates.items()
            }
            for number, (images, labels) in enumerate(batches, skip + 1):
                for name, optimizer in self._optimizers.items():
                    set_learning_rate(optimizer, turns[name][number - 1])
                loss, sent, received = self._batch(images.to(self._device), labels.to(self._device))
                upload_bytes, download_bytes = upload_bytes + sent, download_bytes + received
                num_seen += len(labels)
                if num_seen > last_epoch:
                    total_loss += loss * len(labels)
                on_samples("server", len(labels))
                values = {
                    "total_loss": total_loss,
                    "upload_bytes": upload_bytes,
                    "download_bytes": download_bytes,
                    "num_trained": place,
                    "num_batches": number,
                    "num_seen": num_seen,
                }
                self.saves(partial(Place, values), epoch_done=number % each == 0)
        evaluation = self._validate(self._network)
        mean_loss = total_loss / sum(len(clients[client_id].train) for client_id in chosen)
        return RoundResult(mean_loss, evaluation.loss, evaluation.accuracy, upload_bytes, download_bytes)

    def _batch(self, images: Tensor, labels: Tensor) -> tuple[float, int, int]:
        """Take one step of both halves; the loss, bytes up (features, labels) and bytes down (gradients)."""
        for optimizer in self._optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        features = self._network.extractor(self._network.normalise(images))
        received = features.detach().requires_grad_()
        with training_precision(self._config.precision, self._device):
            logits = self._network.server(received)
        smoothing = self._config.label_smoothing
        loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        assert received.grad is not None
        features.backward(received.grad)
        for optimizer in self._optimizers.values():
            optimizer.step()
        value = loss.item()
        if not np.isfinite(value):
            raise GKTError(f"the training loss is {value}: training diverged, lower the learning rates")
        compressed = self._config.compress
        up = {"features": features.detach().cpu().numpy(), "labels": labels.cpu().numpy()}
        down = {"gradients": received.grad.cpu().numpy()}
        return (
            value,
            num_wire_bytes(up, compressed=compressed),
            num_wire_bytes(down, compressed=compressed),
        )

    def models(self) -> dict[str, nn.Module]:
        """Give both halves as one network."""
        return {"global": self._network}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Give the optimizer of each half."""
        return self._optimizers
