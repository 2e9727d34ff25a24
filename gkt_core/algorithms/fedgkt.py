"""FedGKT (He, Annavaram, Avestimehr, NeurIPS 2020), Algorithm 1.

The server's half is :mod:`gkt_core.algorithms.server_round`, the device's half :mod:`gkt_core.rounds`, the
same for every engine. :class:`FedGKT` puts the two together for simulations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gkt_core.algorithms.base import Algorithm, Networks, OnSamples, RoundResult
from gkt_core.algorithms.server_part import SERVER, server_part
from gkt_core.algorithms.server_round import evaluate
from gkt_core.algorithms.simulation.client import SimulatedClient
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.algorithms.simulation.grouped_training import GroupedTraining
from gkt_core.algorithms.simulation.saving import Place
from gkt_core.algorithms.simulation.sharing import Sharing
from gkt_core.algorithms.simulation.torch_engine import TorchEngine
from gkt_core.algorithms.simulation.uploads import Uploads
from gkt_core.config.run_config import RunConfig
from gkt_core.nn.averaging import trained_with
from gkt_core.nn.building import (
    CombinedNetwork,
    EdgeNetwork,
    build_edge_network,
    build_server_network,
    feature_shape,
)
from gkt_core.nn.checkpoint import below
from gkt_core.nn.initial_weights import load_weights
from gkt_core.rounds.client_part import ClientPart, client_seed
from gkt_core.rounds.client_round import LocalProgress
from gkt_core.rounds.feature_source import ShardSource, split_by_client
from gkt_core.rounds.feature_views import FeatureViews
from gkt_core.rounds.label_privacy import with_private_labels
from gkt_core.rounds.learning_rate import LearningRate
from gkt_core.wire.feature_noise import FeatureNoise, simulated_key
from gkt_core.wire.shards import ShardSpec


class FedGKT(Algorithm):
    """Algorithm 1 in one process.

    Features, logits and labels pass through the shard format of the wire, so that a simulation sees the
    codec's rounding and counts the bytes that devices would send.

    Args:
        federation: The devices' data.
        config: Hyper-parameters.
        shard_folder: Keep a round's features in files of this folder instead of memory.
        initial_edge: Weights that all devices begin from instead of random ones.
        initial_server: Weights that the server network begins from.
        grouped: Train all devices at once, for GPUs, instead of one after another.
        noise: What devices do to features before they send them.
        **networks: As of every algorithm.
    """

    def __init__(
        self,
        federation: Federation,
        config: RunConfig,
        *,
        shard_folder: Path | None = None,
        initial_edge: Path | None = None,
        initial_server: Path | None = None,
        grouped: bool = False,
        noise: FeatureNoise | None = None,
        **networks: Unpack[Networks],
    ) -> None:
        super().__init__(federation, config, **networks)
        self._shard_folder, num_classes = shard_folder, federation.num_classes
        noise = noise or FeatureNoise()
        self._clients: dict[str, SimulatedClient] = {}
        for client_id, data in federation.clients.items():
            # Devices that download one bundle begin from the same weights.
            seed = config.seed if config.shared_init else client_seed(config.seed, client_id)
            network = build_edge_network(self._edge_network, num_classes, **federation.pixels, seed=seed)
            load_weights(network, initial_edge)
            engine = TorchEngine(network.to(self._device), config)
            own_noise = replace(noise, key=simulated_key(config.seed, client_id))
            own_data = with_private_labels(data, own_noise, num_classes)
            part = ClientPart(client_id, own_data, config, num_classes, own_noise)
            self._clients[client_id] = SimulatedClient(part, engine)
        self._sharing = Sharing(self._clients, config)
        self._grouped = GroupedTraining(list(self._clients.values()), config) if grouped else None
        server = build_server_network(self._server_network, num_classes, seed=config.seed)
        load_weights(server, initial_server)
        self._server, self._optimizer = trained_with(self._moved(server), config, config.server_lr)
        shape = feature_shape(next(iter(self._clients.values())).engine.network, federation.image_size)
        self._spec = ShardSpec(config.codec, shape, num_classes, config.shard_samples, config.crops_features)
        # Where not every round has an upload, what was sent is kept from round to round.
        self._kept: Uploads | None = None

    def run_round(self, round_num: int, learning_rate_scale: float, on_samples: OnSamples) -> RoundResult:
        """Run lines 2 to 16 of Algorithm 1."""
        chosen, left = self._sample(round_num), self._left_at()
        download_bytes = left.values.get("download_bytes")
        if download_bytes is None:
            download_bytes = sum(self._clients[client_id].download_bytes for client_id in chosen)
            download_bytes += self._sharing.begin(chosen, round_num)
        values = {"download_bytes": download_bytes}
        uploads = self._kept or Uploads(self._spec, self._config, self._shard_folder)
        self._kept = None if self._config.uploads_every_round else uploads
        trained = len(chosen) if SERVER in left.values else left.values.get("num_trained", 0)
        on_images = partial(on_samples, "devices")
        if self._grouped is not None and not trained:
            self._grouped.train(chosen, round_num, learning_rate_scale, on_images)
            trained = len(chosen)
        for number, client_id in enumerate(chosen):
            client = self._clients[client_id]
            if number >= trained:
                partly = left.values.get("progress") if number == trained else None

                def on_progress(progress: LocalProgress, number: int = number) -> None:
                    place = {**values, "num_trained": number, "progress": asdict(progress)}
                    self.saves(lambda: Place(place))

                done = LocalProgress(**partly) if partly else None
                client.train(round_num, learning_rate_scale, on_images, done=done, on_progress=on_progress)
            # Of a device that had trained before, the very features again: its weights are those of then.
            client.report(round_num, uploads)
        if SERVER not in left.values:
            self.saves(lambda: Place({**values, SERVER: {}}), epoch_done=True)
        source = uploads.source("train", chosen)
        loss = self._train(source, round_num, learning_rate_scale, on_samples, left, values)
        evaluation = evaluate(self._server, uploads.source("validation", chosen))
        sent = uploads.bytes_of(round_num) + self._sharing.end(chosen, round_num)
        return RoundResult(loss, evaluation.loss, evaluation.accuracy, sent, download_bytes)

    def _train(
        self,
        source: ShardSource,
        round_num: int,
        learning_rate_scale: float,
        on_samples: OnSamples,
        left: Place | None = None,
        values: Mapping[str, Any] | None = None,
        share: tuple[int, int, int] | None = None,
    ) -> float:
        """Do the server's part: train on what was uploaded, answer with soft labels; the loss.

        ``share`` is how much of the run is done, how much this is and how much there is in all; a round by
        default.
        """
        config = self._config
        done, size, total = share or (round_num - 1, 1, config.rounds)
        rate = LearningRate.of_run(config, config.server_lr * learning_rate_scale).part(done, total, size)
        update = server_part(
            self._server,
            self._optimizer,
            source,
            config,
            round_num=round_num,
            num_classes=self._federation.num_classes,
            on_samples=on_samples,
            saves=self.saves,
            left=left or Place(),
            values=values or {},
            views=FeatureViews.of_run(config, self._edge_network),
            learning_rate=rate,
            compiler=self.compiler,
        )
        for client_id, soft_labels in split_by_client(source, update.server_logits).items():
            self._clients[client_id].receive(soft_labels)
        return update.loss

    def models(self) -> dict[str, nn.Module]:
        """Give each device's extractor, that of its last upload, with the server network."""
        deployed = {client_id: client.deployed for client_id, client in self._clients.items()}
        return {
            client_id: CombinedNetwork(network.extractor, self._server, network.normalise)
            for client_id, network in deployed.items()
        }

    def edge_models(self) -> dict[str, EdgeNetwork]:
        """Give each device's own network, extractor and local head."""
        return {client_id: client.engine.network for client_id, client in self._clients.items()}

    def modules(self) -> dict[str, nn.Module]:
        """Give server and edge networks, and those that made each device's last upload, where they differ."""
        uploaded = {
            f"{client_id}@upload": client.uploaded
            for client_id, client in self._clients.items()
            if client.uploaded is not None
        }
        return {"server": self._server, **self.edge_models(), **uploaded}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Give the optimizers of the server and of each device."""
        edges = {client_id: client.engine.optimizer for client_id, client in self._clients.items()}
        return {"server": self._optimizer, **edges}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Give what devices remember, such as the soft labels that they train with next."""
        own = {
            f"{client_id}/{name}": array
            for client_id, client in self._clients.items()
            for name, array in client.arrays().items()
        }
        return {**own, **self._sharing.arrays()}

    def restore_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take back what :meth:`arrays` gave."""
        for client_id, client in self._clients.items():
            client.restore_arrays(below(arrays, f"{client_id}/"))
        self._sharing.restore_arrays(arrays)
