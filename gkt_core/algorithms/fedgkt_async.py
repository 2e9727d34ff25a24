"""Asynchronous FedGKT (section 4.4): the server trains on whatever has arrived.

A simulation driven by events on a virtual clock. Devices have different, seeded speeds; each gets its soft
labels as soon as its own features were trained on and goes on at once, unless it is ``max_staleness`` rounds
ahead of the slowest (bounded staleness, Ho et al., NeurIPS 2013). Every device does all its rounds, so that
devices and server do exactly the work of a synchronous run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.algorithms.base import OnSamples, RoundResult
from gkt_core.algorithms.fedgkt import FedGKT
from gkt_core.algorithms.server_part import SERVER
from gkt_core.algorithms.server_round import evaluate
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.algorithms.simulation.saving import Place
from gkt_core.algorithms.simulation.uploads import Uploads
from gkt_core.config.run_config import RunConfig
from gkt_core.rounds.feature_source import ShardSource
from gkt_core.rounds.staleness import check_mode, may_begin

# The slowest device can be this many times slower than the fastest.
SPEED_SPREAD = 4.0


def device_slowness(num_clients: int, seed: int) -> NDArray[np.float64]:
    """Draw the virtual seconds a device needs for a sample: log-uniform from 1 to :data:`SPEED_SPREAD`."""
    return np.exp(np.random.default_rng([seed, 47]).uniform(0.0, np.log(SPEED_SPREAD), num_clients))


class AsyncFedGKT(FedGKT):
    """FedGKT without waiting.

    A "round" of the metrics is as many uploads as there are devices. The server works as fast as makes a
    synchronous round's server part last as long as its devices' part does on average.

    Raises:
        ConfigError: Devices are to be sampled as well.
    """

    def __init__(self, federation: Federation, config: RunConfig, **options: Any) -> None:
        super().__init__(federation, config, **options)
        check_mode(config)
        self._ids = list(self._clients)
        sizes = np.asarray([len(client.part.data.train) for client in self._clients.values()], np.float64)
        self._durations = sizes * config.local_epochs * device_slowness(len(sizes), config.seed)
        self._seconds_per_sample = float(self._durations.mean() / sizes.sum())
        self._clock = 0.0
        self._num_steps = 0
        # When the upload of the round that a device works on arrives; inf while it waits for others.
        self._arrives = self._durations.copy()
        self._trained = np.zeros(len(sizes), np.int64)
        self._answered_in_step = np.zeros(len(sizes), np.int64)

    def run_round(self, round_num: int, learning_rate_scale: float, on_samples: OnSamples) -> RoundResult:
        """Run events until ``round_num`` times the number of devices uploads have been trained on."""
        left = self._left_at()
        losses: list[float] = left.values.get("losses", [])
        staleness: list[int] = left.values.get("staleness", [])
        upload_bytes, download_bytes = (
            left.values.get("upload_bytes", 0),
            left.values.get("download_bytes", 0),
        )
        while int(self._trained.sum()) < round_num * len(self._ids):
            self._clock = max(self._clock, float(self._arrives.min()))
            arrived = np.flatnonzero(self._arrives <= self._clock)
            if SERVER not in left.values:
                self._num_steps += 1
                staleness += (self._num_steps - 1 - self._answered_in_step[arrived]).tolist()
            uploads = Uploads(self._spec, self._config, self._shard_folder)
            for place in arrived:
                # What a device computes depends on nothing that happened meanwhile: only now is it done.
                client = self._clients[self._ids[place]]
                number = int(self._trained[place]) + 1
                if SERVER not in left.values:
                    download_bytes += client.download_bytes
                    client.train(number, learning_rate_scale, lambda num: on_samples("devices", num))
                client.upload(number, uploads)
            source = uploads.source("train")
            values = {
                "losses": losses[:],
                "staleness": staleness[:],
                "upload_bytes": upload_bytes,
                "download_bytes": download_bytes,
            }
            share = int(self._trained.sum()), len(arrived), self._config.rounds * len(self._ids)
            loss = self._train(source, self._num_steps, learning_rate_scale, on_samples, left, values, share)
            losses.append(loss)
            left = Place()
            upload_bytes += uploads.num_bytes
            self._clock += len(source) * self._seconds_per_sample
            self._trained[arrived] += 1
            self._answered_in_step[arrived] = self._num_steps
            self._arrives[arrived] = np.inf
            self._release()
            done = {**values, "losses": losses[:], "upload_bytes": upload_bytes}
            self.saves(partial(Place, done), epoch_done=True)
        evaluation = evaluate(self._server, self._validation_source())
        details = {
            "server_steps": float(self._num_steps),
            "mean_staleness": float(np.mean(staleness)),
            "max_staleness": float(np.max(staleness)),
            "virtual_seconds": self._clock,
        }
        loss, accuracy = evaluation.loss, evaluation.accuracy
        return RoundResult(float(np.mean(losses)), loss, accuracy, upload_bytes, download_bytes, details)

    def _release(self) -> None:
        """Let devices begin their next round, but for those too far ahead and those that are done."""
        slowest = int(self._trained.min())
        for place in np.flatnonzero(np.isinf(self._arrives)):
            rules = {"rounds": self._config.rounds, "max_staleness": self._config.max_staleness}
            if may_begin(int(self._trained[place]), slowest, **rules):
                self._arrives[place] = self._clock + self._durations[place]

    def _validation_source(self) -> ShardSource:
        """Extract each device's validation features, as its last upload had them."""
        uploads = Uploads(self._spec, self._config, None)
        for client in self._clients.values():
            if client.last_round:
                uploads.send_split(client.engine, client.part, client.last_round, "validation")
        return uploads.source("validation")

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Give the clock and where each device stands, beside what FedGKT keeps."""
        return {
            **super().arrays(),
            "async/arrives": self._arrives,
            "async/trained": self._trained,
            "async/answered_in_step": self._answered_in_step,
            "async/clock": np.asarray(self._clock),
            "async/num_steps": np.asarray(self._num_steps),
        }

    def restore_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take back what :meth:`arrays` gave."""
        super().restore_arrays(arrays)
        self._arrives = arrays["async/arrives"].astype(np.float64)
        self._trained = arrays["async/trained"].astype(np.int64)
        self._answered_in_step = arrays["async/answered_in_step"].astype(np.int64)
        self._clock = float(arrays["async/clock"].item())
        self._num_steps = int(arrays["async/num_steps"].item())
