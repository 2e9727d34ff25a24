"""EcoFed-style training, after EcoFed (Wu, Ullah, Rodgers, Kilpatrick, Spence, Varghese), from its abstract.

The device's layers are pre-trained and frozen, so no gradient is sent and features of an image never
change; the server keeps what it received in a replay buffer and asks for new features only every
``period`` rounds; features travel as 8-bit integers. Ours is not theirs: their server keeps a network for
each client and averages them, draws 20 of 100 clients, and their layers are pre-trained on another data
set. Here one server network trains on the buffers of all devices, mixed, each refresh uploads features of
one newly augmented view, and a share of the same images is held back to pre-train on.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    state_wire_bytes,
)
from gkt_core.algorithms.server_part import SERVER, server_part
from gkt_core.algorithms.server_round import evaluate
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.algorithms.simulation.saving import Place
from gkt_core.algorithms.simulation.torch_engine import TorchEngine
from gkt_core.algorithms.simulation.uploads import Uploads
from gkt_core.algorithms.supervised_part import supervised_part
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ConfigError
from gkt_core.nn.averaging import trained_with
from gkt_core.nn.building import CombinedNetwork, build_edge_network, build_server_network, feature_shape
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.feature_views import FeatureViews
from gkt_core.rounds.learning_rate import LearningRate
from gkt_core.wire.shards import ShardSpec

PRETRAINING_OWNER = "pretraining"


class EcoFed(Algorithm):
    """EcoFed-style: a frozen, pre-trained extractor on the devices; a replay buffer at the server.

    Args:
        federation: The devices' data, with samples for pre-training that no device holds.
        config: Hyper-parameters; ``codec`` should be ``uint8``.
        period: Rounds between two uploads.
        pretraining_epochs: Epochs over the pre-training samples.
        **networks: As of every algorithm; the edge network is pre-trained with its head.

    Raises:
        ConfigError: There are no samples to pre-train on.
    """

    def __init__(
        self,
        federation: Federation,
        config: RunConfig,
        *,
        period: int,
        pretraining_epochs: int,
        **networks: Unpack[Networks],
    ) -> None:
        super().__init__(federation, config, **networks)
        if federation.pretraining is None:
            raise ConfigError("ecofed needs samples to pre-train on: split with a pre-training share")
        self._period, self._pretraining_epochs = period, pretraining_epochs
        num_classes, seed = federation.num_classes, config.seed
        network = build_edge_network(self._edge_network, num_classes, **federation.pixels, seed=seed)
        self._engine = TorchEngine(network.to(self._device), config)
        server = self._moved(build_server_network(self._server_network, num_classes, seed=seed))
        self._server, self._optimizer = trained_with(server, config, config.server_lr)
        shape = feature_shape(network, federation.image_size)
        spec = ShardSpec(config.codec, shape, num_classes, config.shard_samples, config.crops_features)
        self._buffer = Uploads(spec, config, None)
        self._pretrains = False

    def run_round(self, round_num: int, learning_rate_scale: float, on_samples: OnSamples) -> RoundResult:
        """Refresh the buffer when its period is over, then train on it."""
        left = self._left_at()
        if round_num == 1 and SERVER not in left.values:
            self._pretrain(on_samples, left)
            self.saves(lambda: Place({SERVER: {}}), epoch_done=True)
        newest = round_num - (round_num - 1) % self._period
        uploads, known = self._last_uploads(round_num), self._last_uploads(round_num - 1)
        if newest == round_num or not self._buffer.num_bytes:
            # All of it again, which a resumed process lacks; counted is what is sent in this round.
            self._refresh(uploads)
        extractor_bytes = state_wire_bytes(self._engine.network.extractor, compressed=self._config.compress)
        download_bytes = extractor_bytes * len(uploads.keys() - known.keys())
        rate = LearningRate.of_round(self._config, self._config.server_lr * learning_rate_scale, round_num)
        update = server_part(
            self._server,
            self._optimizer,
            self._buffer.source("train"),
            self._config,
            round_num=round_num,
            num_classes=self._federation.num_classes,
            on_samples=on_samples,
            saves=self.saves,
            left=left,
            values={},
            views=FeatureViews.of_run(self._config, self._edge_network),
            learning_rate=rate,
            compiler=self.compiler,
        )
        evaluation = evaluate(self._server, self._buffer.source("validation"))
        upload_bytes = self._buffer.bytes_of(round_num)
        return RoundResult(update.loss, evaluation.loss, evaluation.accuracy, upload_bytes, download_bytes)

    def _pretrain(self, on_samples: OnSamples, left: Place) -> None:
        assert self._federation.pretraining is not None
        self._pretrains = True
        supervised_part(
            self._engine.network,
            self._engine.optimizer,
            self._federation.pretraining,
            self._config,
            owner=PRETRAINING_OWNER,
            round_num=1,
            on_samples=partial(on_samples, "pre-training"),
            saves=self.saves,
            place_of=lambda values: Place({PRETRAINING_OWNER: values}),
            begin=SupervisedPlace(**left.values.get(PRETRAINING_OWNER, {})),
            epochs=self._pretraining_epochs,
        )
        self._pretrains = False

    def prepare(self, place: Place) -> None:
        """Expect the optimizer of the pre-training in the middle of it."""
        self._pretrains = PRETRAINING_OWNER in place.values

    def _last_uploads(self, round_num: int) -> dict[str, int]:
        """Give the round in which each device that was drawn so far uploaded last."""
        last: dict[str, int] = {}
        for number in range(1, round_num + 1, self._period):
            last |= dict.fromkeys(self._sample(number), number)
        return last

    def _refresh(self, uploads: Mapping[str, int]) -> None:
        self._buffer.clear()
        for client_id, data in self._federation.clients.items():
            if client_id in uploads:
                part = ClientPart(client_id, data, self._config, self._federation.num_classes)
                self._buffer.send_client(self._engine, part, uploads[client_id])

    def models(self) -> dict[str, nn.Module]:
        """Give the frozen extractor with the server network."""
        network = self._engine.network
        return {"global": CombinedNetwork(network.extractor, self._server, network.normalise)}

    def modules(self) -> dict[str, nn.Module]:
        """Give the pre-trained network and the server's; a buffer is extracted again by the former."""
        return {"device": self._engine.network, "server": self._server}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Give the server's optimizer, and the devices' until they are frozen."""
        device = {"device": self._engine.optimizer} if self._pretrains else {}
        return {"server": self._optimizer, **device}
