"""The application of one run, what devices say to it, and what its trainer would do, without training.

Tests of other packages name this module and ``tests.server_app.server_fixtures`` in ``pytest_plugins``.
PYTEST_DONT_REWRITE keeps pytest from warning about the functions that they import as well.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flask import Flask

from gkt_core.bundle.manifest import Bundle, load_bundle
from gkt_core.wire.protocol import (
    PROTOCOL_VERSION,
    SHA256_HEADER,
    ErrorBody,
    JoinRequest,
    RoundReport,
    RunStatus,
    Task,
    from_json,
    to_json,
)
from gkt_core.wire.shards import ShardKey, SoftLabels, write_soft_labels
from server_app import create_app
from server_app.rounds.state import Claimed, Trained
from server_app.run_folder import (
    DATABASE_NAME,
    SERVER_WEIGHTS_BLOB,
    TEMPLATE_BLOB,
    RunContext,
    soft_labels_blob,
)
from server_app.store import BlobStore
from tests.server_app.server_fixtures import (
    CLIENTS,
    NUM_CLASSES,
    OPERATOR_SECRET,
    TOKEN,
    open_store,
    run_config,
    shard_bytes,
)

NUM_TRAIN, NUM_VALIDATION = 12, 5
JOIN = JoinRequest(PROTOCOL_VERSION, NUM_TRAIN, NUM_VALIDATION, NUM_CLASSES, "ort_training")
REPORT = RoundReport(2, 1, NUM_TRAIN, 0.75, 0.5, 1.5, 0.25, 8.0)
# The first and the second training shard, then the validation shard: 8 + 4 and 5 samples.
# Split, index, samples, and the first id.
Part = tuple[str, int, int, int]
PARTS = (("train", 0, 8, 0), ("train", 1, 4, 8), ("validation", 0, 5, 100))
# A safetensors file without a tensor: of one that is cut short, the server says that it is damaged.
WEIGHTS = b"\x03\0\0\0\0\0\0\0{} "
METRICS = {
    "train_loss": 0.5,
    "train_accuracy": 0.25,
    "validation_loss": 1.5,
    "validation_accuracy": 0.125,
    "samples_per_second": 64.0,
}


@pytest.fixture(scope="session")
def bundle(server_bundle: Path) -> Bundle:
    return load_bundle(server_bundle)


@pytest.fixture
def run(empty_run: Path, bundle: Bundle, tmp_path: Path) -> Iterator[RunContext]:
    """A new run; as open_run gives it, but for the bundle, which is read once for all tests."""
    shutil.copy(empty_run / DATABASE_NAME, tmp_path)
    store = open_store(tmp_path / DATABASE_NAME)
    yield RunContext(tmp_path, store, BlobStore(tmp_path / "blobs"), bundle, run_config())
    store.close()


@pytest.fixture
def app(run: RunContext) -> Flask:
    return create_app(run, TOKEN, operator_secret=OPERATOR_SECRET, poll_seconds=0.5)


@pytest.fixture
def api(app: Flask, run: RunContext) -> Iterator[Api]:
    with httpx.Client(
        transport=httpx.WSGITransport(app=app),
        base_url="http://server",
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as http:
        yield Api(http, run)


class Api:
    """Requests to one run, and what its folder holds."""

    def __init__(self, http: httpx.Client, run: RunContext) -> None:
        self.http, self.run, self.root = http, run, f"/v1/runs/{run.store.run_id}"

    def join(self, client_id: str, message: object = JOIN) -> httpx.Response:
        return self.http.put(f"{self.root}/clients/{client_id}", content=to_json(message))

    def task(self, client_id: str) -> Task:
        return from_json(Task, self.http.get(f"{self.root}/clients/{client_id}/task").content)

    def status(self) -> RunStatus:
        return from_json(RunStatus, self.http.get(f"{self.root}/status").content)

    def put(
        self, body: bytes, path: str = "rounds/1/clients/client-a/shards/train/0", **headers: str
    ) -> httpx.Response:
        headers = {SHA256_HEADER: hashlib.sha256(body).hexdigest()} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.http.put(f"{self.root}/{path}", content=body, headers=headers)

    def put_shard(self, key: ShardKey, body: bytes, **headers: str) -> httpx.Response:
        path = f"rounds/{key.round_num}/clients/{key.client_id}/shards/{key.split}/{key.index}"
        return self.put(body, path, **headers)

    def put_parts(self, client_id: str, round_num: int = 1, parts: Sequence[Part] = PARTS) -> None:
        for split, index, num, first_id in parts:
            key = ShardKey(client_id, round_num, split, index)
            assert self.put_shard(key, shard_bytes(key, num, first_id=first_id)).status_code == 200

    def report(
        self, client_id: str = "client-a", round_num: int = 1, report: RoundReport | bytes = REPORT
    ) -> httpx.Response:
        body = report if isinstance(report, bytes) else to_json(report)
        return self.http.put(f"{self.root}/rounds/{round_num}/clients/{client_id}/report", content=body)

    def collect(self, round_num: int = 1) -> None:
        """Everything that all devices send in one round."""
        for client_id in CLIENTS:
            self.put_parts(client_id, round_num)
            assert self.report(client_id, round_num).status_code == 200

    def train(self, round_num: int = 1) -> None:
        """What the trainer does, without training."""
        self.run.store.apply(Claimed(round_num))
        for client_id in CLIENTS:
            self.run.blobs.put(soft_labels_blob(round_num, client_id), soft_label_bytes(client_id, round_num))
        if round_num == self.run.config.rounds:
            self.run.blobs.put(TEMPLATE_BLOB, b"the template")
            self.run.blobs.put(SERVER_WEIGHTS_BLOB, WEIGHTS)
        self.run.store.add_round_metrics(round_num, METRICS)
        self.run.store.apply(Trained(round_num))

    def contents(self) -> tuple[dict[str, list[Any]], list[tuple[Path, bytes]]]:
        """All rows of the database but traffic, and all blobs."""
        database = sqlite3.connect(self.run.folder / DATABASE_NAME)
        try:
            rows = {
                table: database.execute(f"SELECT * FROM {table}").fetchall()
                for table in (
                    "runs",
                    "clients",
                    "identities",
                    "shards",
                    "reports",
                    "rounds",
                    "credentials",
                    "enrolments",
                )
            }
        finally:
            database.close()
        blobs = sorted(path for path in (self.run.folder / "blobs").rglob("*") if path.is_file())
        return rows, [(path, path.read_bytes()) for path in blobs]


@pytest.fixture
def joined(api: Api) -> Api:
    """All devices have joined: round 1 is open."""
    for client_id in CLIENTS:
        assert api.join(client_id).status_code == 200
    return api


def soft_label_bytes(client_id: str, round_num: int) -> bytes:
    logits = np.full((NUM_TRAIN, NUM_CLASSES), round_num, np.float32)
    return write_soft_labels(client_id, round_num, SoftLabels(np.arange(NUM_TRAIN), logits))


def refused(response: httpx.Response, status: int, error: str, *words: str) -> ErrorBody:
    """Whether this is an error with this status, and all the words in its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = from_json(ErrorBody, response.content)
    assert body.error == error
    assert body.message and all(word in body.message for word in words), body.message
    return body
