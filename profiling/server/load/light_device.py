"""A device that speaks the whole protocol and trains nothing: its shards are random numbers, made once.

What the server does with them is real: it checks, keeps, trains on and answers each of them.
"""

from __future__ import annotations

import functools
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import httpx
import numpy as np

from edge_runtime.server_client import ServerClient
from edge_runtime.turn import next_task
from gkt_core.bundle.manifest import Manifest
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import RunFailedError
from gkt_core.wire.levels.transport import level_features
from gkt_core.wire.protocol import PROTOCOL_VERSION, JoinRequest, Task
from gkt_core.wire.shards import ShardKey, read_soft_labels, write_feature_shard
from profiling.counted.message_sizes import TYPICAL_REPORT

AnswerT = TypeVar("AnswerT")

_FIRST_IDS = {"train": 0, "validation": 1_000_000}


@dataclass(slots=True)
class LightDevice:
    """One device, run by a thread of its own.

    Attributes:
        url: The server's.
        token: What this device shows it.
        client_id: The device's name.
        seed: Of its shards.
        num_examples: Training samples.
        num_validation_examples: Validation samples.
        together: All devices wait for each other before they join.
        on_uploaded: Called with the round when this device has reported.
        stopping: Set when another device has failed: nobody will finish then.
        num_rounds: It took part in.
        num_requests: Answers it got.
        num_retries: Requests that it had to repeat.
        longest_seconds: The longest that one request took until its answer, repeats included.
        upload_bytes: It sent.
        download_bytes: It was sent.
    """

    url: str
    token: str
    client_id: str
    seed: int
    num_examples: int
    num_validation_examples: int
    together: threading.Barrier
    on_uploaded: Callable[[int], None]
    stopping: threading.Event
    num_rounds: int = field(default=0, init=False)
    num_requests: int = field(default=0, init=False)
    num_retries: int = field(default=0, init=False)
    longest_seconds: float = field(default=0.0, init=False)
    upload_bytes: int = field(default=0, init=False)
    download_bytes: int = field(default=0, init=False)

    def run(self, tls: ssl.SSLContext) -> None:
        """Take part until the run has ended.

        Args:
            tls: Shared by all devices: making one takes longer than a round.

        Raises:
            GKTError: As of :class:`ServerClient`, or the server stopped the run.
        """
        server = ServerClient(
            self.url,
            self.token,
            transport=httpx.HTTPTransport(verify=tls),
            on_retry=self._count_retry,
            sleep=self._pause,
        )
        try:
            self._take_part(server)
        finally:
            server.close()
        self.upload_bytes, self.download_bytes = server.upload_bytes, server.download_bytes

    def _take_part(self, server: ServerClient) -> None:
        self.together.wait()
        info = self._timed(server.run_info)
        config, manifest = RunConfig.from_dict(info.config), Manifest.from_dict(info.manifest)
        join = JoinRequest(
            PROTOCOL_VERSION,
            self.num_examples,
            self.num_validation_examples,
            manifest.num_classes,
            "load",
        )
        server.levels = level_features(config.codec, manifest.feature_shape)
        task = self._timed(lambda: server.join(self.client_id, join))
        while task.action != "finish":
            if task.action == "train":
                task = self.take_round(server, config, manifest, task)
                self.num_rounds += 1
            elif task.action == "wait":
                # Not timed: the server answers when there is something to do.
                task = next_task(server, self.client_id, self._pause)
                self.num_requests += 1
            else:
                raise RunFailedError(f"{self.client_id} was told to {task.action}: {task.reason}")

    def take_round(self, server: ServerClient, config: RunConfig, manifest: Manifest, task: Task) -> Task:
        """Take part in one round, and say what to do next.

        Raises:
            GKTError: As of :class:`ServerClient`.
        """
        round_num, answered = task.round_num, task.soft_labels_round
        if answered:
            data = self._timed(lambda: server.soft_labels(self.client_id, answered))
            labels = read_soft_labels(data, self.client_id, answered, manifest.num_classes)
            labels.for_samples(np.arange(self.num_examples, dtype=np.int64))
        missing = self._timed(lambda: server.missing_shards(self.client_id, round_num))
        for split, indexes in (("train", missing.train), ("validation", missing.validation)):
            for index in indexes:
                key = ShardKey(self.client_id, round_num, split, index)
                body = self._shard(key, config, manifest)
                self._timed(functools.partial(server.put_shard, key, body, compressed=config.compress))
        report = replace(
            TYPICAL_REPORT,
            num_train_shards=-(-self.num_examples // config.shard_samples),
            num_validation_shards=-(-self.num_validation_examples // config.shard_samples),
            num_examples=self.num_examples,
        )
        after = self._timed(lambda: server.report(self.client_id, round_num, report))
        self.on_uploaded(round_num)
        return after

    def _shard(self, key: ShardKey, config: RunConfig, manifest: Manifest) -> bytes:
        """Features that the server has not seen yet, with labels that stay a sample's."""
        total = self.num_examples if key.split == "train" else self.num_validation_examples
        begin = key.index * config.shard_samples
        ids = np.arange(begin, min(begin + config.shard_samples, total), dtype=np.int64)
        rng = np.random.default_rng((self.seed, key.round_num, key.index, _FIRST_IDS[key.split]))
        return write_feature_shard(
            key,
            _FIRST_IDS[key.split] + ids,
            rng.random((len(ids), *manifest.feature_shape), dtype=np.float32),
            rng.normal(size=(len(ids), manifest.num_classes)).astype(np.float32),
            (self.seed + ids) % manifest.num_classes,
            config.codec,
        )

    def _timed(self, call: Callable[[], AnswerT]) -> AnswerT:
        started = time.perf_counter()
        answer = call()
        self.num_requests += 1
        self.longest_seconds = max(self.longest_seconds, time.perf_counter() - started)
        return answer

    def _pause(self, seconds: float) -> None:
        if self.stopping.wait(seconds):
            raise RunFailedError(f"{self.client_id} was stopped")

    def _count_retry(self, line: str) -> None:
        self.num_retries += 1
