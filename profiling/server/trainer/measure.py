"""The trainer's samples a second beside a bare PyTorch loop, turn by turn in one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_export import ExportOptions, export_bundle
from gkt_core.errors import RunFailedError
from gkt_core.nn.execution import prepare_torch
from gkt_core.nn.losses import server_loss
from gkt_core.rounds.feature_source import ShardSource
from profiling.frame import Announce
from profiling.frame.measuring.step_time import spread_of
from profiling.server.trainer.memory import measure_memory
from profiling.server.trainer.options import TrainerOptions
from profiling.server.trainer.ready_run import RunSize, make_ready_run
from server_app.rounds.state import Phase
from server_app.run_folder import RunContext
from server_app.trainer.network import build_network
from server_app.trainer.trainer import Trainer

_NUM_CLASSES = 10
_GROWTH = 8


def measure_trainer(options: TrainerOptions, announce: Announce) -> dict[str, Any]:
    """Time trainer and bare loop in turns, then compare the memory of two trainers.

    Raises:
        RunFailedError: A trainer did not finish its run.
    """
    prepare_torch("cpu", options.threads)
    size = RunSize(
        options.num_clients,
        options.num_examples // options.num_clients,
        options.server_epochs,
        options.batch_size,
        options.codec,
    )
    rates: dict[str, list[float]] = {"trainer": [], "bare_loop": []}
    memory = None
    with tempfile.TemporaryDirectory(prefix="gkt-trainer-") as name:
        folder = Path(name)
        announce("exporting the networks")
        bundle = folder / "artifacts"
        export_bundle(ExportOptions(image_size=options.image_size, num_classes=_NUM_CLASSES), bundle)
        bare = _BareLoop(make_ready_run(folder / "tensors", bundle, size))
        for repeat in range(options.repeats + 1):
            announce(f"turn {repeat} of {options.repeats}" if repeat else "warming up")
            run = make_ready_run(folder / f"run-{repeat}", bundle, size)
            # Which one is first changes, so that a machine that slows down slows both.
            turn: dict[str, Callable[[], float]] = {
                "trainer": partial(trainer_rate, run),
                "bare_loop": bare.rate,
            }
            for candidate in sorted(turn, reverse=bool(repeat % 2)):
                rate = turn[candidate]()
                if repeat:
                    rates[candidate].append(rate)
        if options.memory_examples:
            announce("memory of the trainer")
            memory = measure_memory(
                folder, bundle, options.memory_examples, _GROWTH, options.batch_size, options.threads
            )
    ratios = [mine / other for mine, other in zip(rates["trainer"], rates["bare_loop"], strict=True)]
    return {
        "samples_per_second": {candidate: spread_of(values) for candidate, values in rates.items()},
        "ratio": spread_of(ratios),
        "memory": memory,
    }


def trainer_rate(run: RunContext) -> float:
    """Samples a second of the whole trainer, as it reports them: soft labels apart, checkpoints included."""
    state = Trainer(run).run_until_done()
    if state.phase is not Phase.FINISHED:
        raise RunFailedError(f"the trainer did not finish its run: {state.error}")
    (record,) = run.store.rounds()
    return record.metrics["samples_per_second"]


class _BareLoop:
    """What a PyTorch tutorial would write: the same network, loss and optimizer over tensors in memory."""

    def __init__(self, run: RunContext) -> None:
        shards = (
            (shard.key, run.blobs.local_path(shard.blob))
            for shard in run.store.shards(1)
            if shard.key.split == "train"
        )
        source = ShardSource.from_files(shards, run.shard_spec)
        everything = source.gather(np.arange(len(source)))
        self._features = torch.from_numpy(everything.features)
        self._client_logits = torch.from_numpy(everything.client_logits)
        self._labels = torch.from_numpy(everything.labels)
        self._config = run.config
        self._run = run

    def rate(self) -> float:
        """Samples a second of some epochs from new weights, as the trainer begins."""
        config = self._config
        network, optimizer = build_network(self._run, torch.device("cpu"))
        alpha = config.alpha if config.server_distils else 0.0
        network.train()
        started = time.perf_counter()
        for _ in range(config.server_epochs):
            for rows in torch.split(torch.randperm(len(self._labels)), config.server_batch_size):
                optimizer.zero_grad(set_to_none=True)
                features = self._features[rows].contiguous(memory_format=torch.channels_last)
                loss = server_loss(
                    network(features),
                    self._labels[rows],
                    self._client_logits[rows],
                    alpha,
                    config.temperature,
                )
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return config.server_epochs * len(self._labels) / (time.perf_counter() - started)
