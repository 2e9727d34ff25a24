"""How fast a simulation is: beside bare PyTorch loops of the same networks, and 16 devices beside one.

All candidates take turns in one run, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from gkt_core.algorithms.server_round import server_update
from gkt_core.algorithms.simulation.client import SimulatedClient
from gkt_core.algorithms.simulation.torch_engine import TorchEngine
from gkt_core.algorithms.simulation.uploads import Uploads
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.nn import build_edge_network, build_server_network, feature_shape
from gkt_core.nn.execution import prepare_torch
from gkt_core.nn.optimizers import edge_optimizer, large_network_optimizer
from gkt_core.rounds.client_part import ClientPart
from gkt_core.wire.shards import ShardSpec
from profiling.experiments.speed.options import SpeedOptions
from profiling.frame.measurement import Announce
from profiling.frame.measuring.step_time import spread_of

_NUM_CLASSES = 10
_LEAST_TURNS = 2


def measure_speed(options: SpeedOptions, announce: Announce) -> dict[str, Any]:
    """Time all candidates in turn."""
    prepare_torch(options.device, options.threads)
    config = RunConfig(
        batch_size=options.batch_size,
        server_batch_size=options.batch_size,
        server_epochs=1,
        compress=False,
        precision=options.precision,
    )
    samples = _samples(options.num_examples, options.image_size)
    clients = _Clients(samples, config, options)
    server = _Server(config, options)
    candidates: dict[str, tuple[int, Callable[[], None]]] = {
        "one_client": (len(samples), clients.one),
        "many_clients": (len(samples), clients.many),
        "client_steps": (len(samples), clients.steps),
        "bare_edge_loop": (len(samples), clients.bare_loop),
        "server_update": (options.num_server_examples, server.update),
        "bare_server_loop": (options.num_server_examples, server.bare_loop),
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    begun = time.perf_counter()
    for repeat in range(options.repeats + 1):
        if repeat > _LEAST_TURNS and time.perf_counter() - begun > options.max_seconds:
            break
        for name, (_, run) in candidates.items():
            announce(f"{name}, {repeat} of {options.repeats}" if repeat else f"{name}, warming up")
            started = time.perf_counter()
            run()
            if options.device == "cuda":
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return {
        "candidates": {
            name: _describe(seconds[name], num_samples) for name, (num_samples, _) in candidates.items()
        },
        "ratios": {
            "clients_phase_many_over_one": _ratio(seconds["many_clients"], seconds["one_client"]),
            "client_steps_over_bare_loop": _ratio(seconds["client_steps"], seconds["bare_edge_loop"]),
            "server_update_over_bare_loop": _ratio(seconds["server_update"], seconds["bare_server_loop"]),
        },
    }


def _describe(seconds: list[float], num_samples: int) -> dict[str, Any]:
    rates = spread_of([num_samples / value for value in seconds])
    return {"samples_per_second": rates.pop("median"), **rates}


def _ratio(left: list[float], right: list[float]) -> dict[str, float]:
    """Divide times within a turn, so that slow turns cancel."""
    return spread_of([one / other for one, other in zip(left, right, strict=True)])


def _samples(num: int, image_size: int) -> Samples:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (num, image_size, image_size, 3), dtype=np.uint8)
    return Samples(images, generator.integers(0, _NUM_CLASSES, num), np.arange(num))


def _private(samples: Samples, chosen: np.ndarray[Any, Any]) -> PrivateData:
    """These rows of samples as a device's training data, which validates on nothing."""
    train, nothing = (
        Samples(samples.images[rows], samples.labels[rows], samples.sample_ids[rows])
        for rows in (chosen, chosen[:0])
    )
    return PrivateData(train, nothing, tuple(map(str, range(_NUM_CLASSES))))


class _Clients:
    """The clients' phase of a round: training, extraction, and encoding of what would be sent."""

    def __init__(self, samples: Samples, config: RunConfig, options: SpeedOptions) -> None:
        self._samples, self._config = samples, config
        self._device = torch.device(options.device)
        self._round_num = 0
        rows = np.arange(len(samples))
        self._one = [self._client("one", _private(samples, rows))]
        self._many = [
            self._client(f"client-{number:03d}", _private(samples, part))
            for number, part in enumerate(np.array_split(rows, options.num_clients))
        ]
        shape = feature_shape(self._one[0].engine.network, options.image_size)
        self._spec = ShardSpec(config.codec, shape, _NUM_CLASSES, config.shard_samples)
        self._images = torch.from_numpy(samples.images).permute(0, 3, 1, 2).float().div(255).to(self._device)
        self._labels = torch.from_numpy(samples.labels).to(self._device)
        self._bare = build_edge_network("resnet8", _NUM_CLASSES).to(self._device)
        optimizer = EdgeOptimizer.of_run(config)
        self._bare_optimizer = edge_optimizer(self._bare.parameters(), optimizer, config.edge_lr)

    def _client(self, client_id: str, data: PrivateData) -> SimulatedClient:
        network = build_edge_network("resnet8", _NUM_CLASSES).to(self._device)
        part = ClientPart(client_id, data, self._config, _NUM_CLASSES)
        return SimulatedClient(part, TorchEngine(network, self._config))

    def one(self) -> None:
        self._phase(self._one)

    def many(self) -> None:
        self._phase(self._many)

    def _phase(self, clients: list[SimulatedClient]) -> None:
        self._round_num += 1
        uploads = Uploads(self._spec, self._config, None)
        for client in clients:
            client.train(self._round_num, 1.0, lambda num: None)
            client.upload(self._round_num, uploads)

    def steps(self) -> None:
        """Training alone, augmentation included."""
        self._one[0].train(1, 1.0, lambda num: None)

    def bare_loop(self) -> None:
        """Train as a PyTorch tutorial would, on images that are tensors already."""
        self._bare.train()
        for rows in torch.split(torch.randperm(len(self._samples)), self._config.batch_size):
            self._bare_optimizer.zero_grad(set_to_none=True)
            _, logits = self._bare(self._images[rows])
            nn.functional.cross_entropy(logits, self._labels[rows]).backward()  # type: ignore[no-untyped-call]
            self._bare_optimizer.step()


class _Server:
    """One server epoch over uploaded features, soft labels included, and the bare loop without them."""

    def __init__(self, config: RunConfig, options: SpeedOptions) -> None:
        self._config, self._device = config, torch.device(options.device)
        samples = _samples(options.num_server_examples, options.image_size)
        edge = build_edge_network("resnet8", _NUM_CLASSES).to(self._device)
        shape = feature_shape(edge, options.image_size)
        uploads = Uploads(ShardSpec(config.codec, shape, _NUM_CLASSES, config.shard_samples), config, None)
        data = _private(samples, np.arange(len(samples)))
        uploads.send_client(TorchEngine(edge, config), ClientPart("server", data, config, _NUM_CLASSES), 1)
        self._source = uploads.source("train")
        self._network, self._optimizer = self._build()
        self._bare, self._bare_optimizer = self._build()
        batch = self._source.gather(np.arange(len(self._source)))
        self._features = torch.from_numpy(batch.features).to(self._device, memory_format=torch.channels_last)
        self._labels = torch.from_numpy(batch.labels).to(self._device)

    def _build(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        network = build_server_network("resnet55", _NUM_CLASSES)
        network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = large_network_optimizer(network.parameters(), self._config, self._config.server_lr)
        return network, optimizer

    def update(self) -> None:
        server_update(
            self._network, self._optimizer, self._source, self._config, round_num=1, num_classes=_NUM_CLASSES
        )

    def bare_loop(self) -> None:
        self._bare.train()
        for rows in torch.split(torch.randperm(len(self._labels)), self._config.server_batch_size):
            self._bare_optimizer.zero_grad(set_to_none=True)
            batch = self._features[rows].contiguous(memory_format=torch.channels_last)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bf16"):
                logits = self._bare(batch)
            nn.functional.cross_entropy(logits.float(), self._labels[rows]).backward()  # type: ignore[no-untyped-call]
            self._bare_optimizer.step()
