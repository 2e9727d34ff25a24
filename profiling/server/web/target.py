"""A run to upload to, and a device that uploads: shards of about 4 MiB of fp32 features."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_export import ExportOptions, export_bundle
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import RunFailedError
from gkt_core.wire import paths
from gkt_core.wire.paths import fill
from gkt_core.wire.protocol import PROTOCOL_VERSION, SHA256_HEADER, JoinRequest, to_json
from gkt_core.wire.shards import ShardKey, write_feature_shard
from server_app import create_run
from server_app.members.inviting import enrolled

CLIENT_ID = "device"
FEATURE_SHAPE = (16, 8, 8)
NUM_CLASSES = 10
# So many samples of 16 x 8 x 8 floats are 4 MiB with their logits, labels and ids. Small images, as a bundle
# for them is verified in seconds; the server sees bytes.
SHARD_SAMPLES = 1008
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Upload:
    """One body and where it goes.

    Attributes:
        index: Number of the shard.
        body: The shard.
        sha256: Its hash.
    """

    index: int
    body: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class MadeRun:
    """A run that a device may upload to.

    Attributes:
        run_id: Its id.
        bearer: What the device shows, which has enrolled.
    """

    run_id: str
    bearer: str = field(repr=False)


def make_run(folder: Path) -> MadeRun:
    """Export a bundle, and begin a run of one device with uncompressed fp32 features."""
    artifacts = folder / "artifacts"
    export_bundle(ExportOptions(num_classes=NUM_CLASSES, image_size=FEATURE_SHAPE[1]), artifacts)
    config = RunConfig(num_clients=1, rounds=1, codec="fp32", compress=False, shard_samples=SHARD_SAMPLES)
    run = create_run(folder / "run", artifacts, config)
    with contextlib.closing(run.store) as store:
        return MadeRun(store.run_id, enrolled(run, CLIENT_ID))


def make_uploads(first_index: int, num: int) -> list[Upload]:
    """Shards as a device makes them: rectified features, so about half of them zero."""
    uploads = []
    for index in range(first_index, first_index + num):
        rng = np.random.default_rng(index)
        features = rng.standard_normal((SHARD_SAMPLES, *FEATURE_SHAPE), dtype=np.float32)
        body = write_feature_shard(
            ShardKey(CLIENT_ID, 1, "train", index),
            index * SHARD_SAMPLES + np.arange(SHARD_SAMPLES),
            np.maximum(features, 0),
            rng.standard_normal((SHARD_SAMPLES, NUM_CLASSES), dtype=np.float32),
            rng.integers(0, NUM_CLASSES, SHARD_SAMPLES),
            "fp32",
        )
        uploads.append(Upload(index, body, hashlib.sha256(body).hexdigest()))
    return uploads


class Uploader:
    """A connection that is kept open, as a device keeps it."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)

    def put(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send one body.

        Raises:
            RunFailedError: It was refused.
        """
        self._http.request("PUT", path, body, headers or {})
        answer = self._http.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise RunFailedError(f"PUT {path} was answered {answer.status}: {said[:200]!r}")

    def take(self, uploads: Sequence[Upload]) -> None:
        """Send bodies that nothing but their number names."""
        for upload in uploads:
            self.put(f"/{upload.index}", upload.body)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


class Device(Uploader):
    """A device of the run, which has joined."""

    def __init__(self, port: int, run: MadeRun, num_shards: int) -> None:
        super().__init__(port)
        self._run_path = fill(paths.RUN, run_id=run.run_id)
        self._authorised = {"Authorization": f"Bearer {run.bearer}"}
        join = JoinRequest(PROTOCOL_VERSION, num_shards * SHARD_SAMPLES, 1, NUM_CLASSES, "measurement")
        self.put(self._run_path + fill(paths.CLIENT, client_id=CLIENT_ID), to_json(join), self._authorised)

    def shard_path(self, index: int) -> str:
        """Where a shard goes."""
        return self._run_path + fill(
            paths.SHARD, round_num=1, client_id=CLIENT_ID, split="train", index=index
        )

    def take(self, uploads: Sequence[Upload]) -> None:
        """Send shards."""
        for upload in uploads:
            headers = {SHA256_HEADER: upload.sha256, **self._authorised}
            self.put(self.shard_path(upload.index), upload.body, headers)
