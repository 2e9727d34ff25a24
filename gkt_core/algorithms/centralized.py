"""Centralised training: one network on everybody's data, the bound that no federation needs to beat."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import torch
from torch import nn

from gkt_core.algorithms.base import (
    Algorithm,
    Networks,
    OnSamples,
    RoundResult,
    SupervisedPlace,
    evaluate_images,
)
from gkt_core.algorithms.simulation.federation import Federation, join_samples
from gkt_core.algorithms.simulation.saving import Place
from gkt_core.algorithms.supervised_part import supervised_part
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import Samples
from gkt_core.data.sent_images import sent_images
from gkt_core.networks import FULL_NETWORKS
from gkt_core.nn.averaging import trained_with
from gkt_core.nn.building import build_edge_network, build_full_network
from gkt_core.rounds.learning_rate import LearningRate


class Centralized(Algorithm):
    """ResNet-56/110, or an edge network alone, trained where all the data are.

    A round is ``local_epochs`` epochs. ``network``, ``resnet8`` and so on, takes the place of the large one.
    With ``sent_as`` devices send their images once, in the first round, as files of that format; training and
    validation see what arrives.
    """

    def __init__(
        self,
        federation: Federation,
        config: RunConfig,
        *,
        network: str | None = None,
        sent_as: str | None = None,
        **networks: Unpack[Networks],
    ) -> None:
        super().__init__(federation, config, **networks)
        if network is None:
            built: nn.Module = self._combined_network()
        else:
            build = build_full_network if network in FULL_NETWORKS else build_edge_network
            built = self._moved(build(network, federation.num_classes, **federation.pixels, seed=config.seed))
        self._network, self._optimizer = trained_with(built, config, config.server_lr)
        train: list[Samples] = []
        validation: list[Samples] = []
        self._sent_bytes = 0
        for data in federation.clients.values():
            for samples, received in ((data.train, train), (data.validation, validation)):
                arrived, num_bytes = sent_images(samples, sent_as) if sent_as else (samples, 0)
                received.append(arrived)
                self._sent_bytes += num_bytes
        self._samples, self._validation = join_samples(train), join_samples(validation)

    def run_round(self, round_num: int, learning_rate_scale: float, on_samples: OnSamples) -> RoundResult:
        """Train ``local_epochs`` epochs over all samples."""
        samples, config = self._samples, self._config
        rate = LearningRate.of_round(config, config.server_lr * learning_rate_scale, round_num)
        loss = supervised_part(
            self._network,
            self._optimizer,
            samples,
            config,
            owner="centralized",
            round_num=round_num,
            on_samples=partial(on_samples, "server"),
            saves=self.saves,
            place_of=Place,
            begin=SupervisedPlace(**self._left_at().values),
            rate=rate,
            precision=config.precision,
            label_smoothing=config.label_smoothing,
            compiler=self.compiler,
        )
        evaluation = evaluate_images(self._network, self._validation, self._federation.num_classes)
        sent = self._sent_bytes if round_num == 1 else 0
        return RoundResult(loss, evaluation.loss, evaluation.accuracy, sent, 0)

    def models(self) -> dict[str, nn.Module]:
        """Give the network that was trained."""
        return {"global": self._network}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Give the optimizer of that network."""
        return {"global": self._optimizer}
