"""Bent requests to the real application: no answer is a 5xx or undocumented, and a refusal changes nothing.

``GKT_FUZZ_REQUESTS`` and ``GKT_FUZZ_SEED`` (``make fuzz N=50000 SEED=7``) say how many and which.
"""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from gkt_core.bundle.manifest import Bundle, load_bundle
from gkt_core.errors import MessageError
from gkt_core.wire.protocol import ErrorBody, from_json, to_json
from gkt_core.wire.shards import read_feature_shard
from server_app import create_app
from server_app.run_folder import DATABASE_NAME, RunContext
from server_app.store import BlobStore
from server_app.web.classifier import FeatureClassifier
from tests.server_app.server_fixtures import CLIENTS, OPERATOR_SECRET, TOKEN, open_store, run_config
from tests.server_app.web.documented import Documented
from tests.server_app.web.fuzzing import JOIN, Sent, bend, valid_requests

NUM_REQUESTS = int(os.environ.get("GKT_FUZZ_REQUESTS", "1000"))
SEED = int(os.environ.get("GKT_FUZZ_SEED", "0"))
TABLES = ("runs", "clients", "shards", "reports", "rounds", "credentials", "enrolments")


class Target:
    """The application in the middle of a round, and everything that it keeps."""

    def __init__(self, folder: Path, bundle: Bundle, classifier: FeatureClassifier) -> None:
        store = open_store(folder / DATABASE_NAME)
        self.run = RunContext(folder, store, BlobStore(folder / "blobs"), bundle, run_config())
        app = create_app(self.run, TOKEN, operator_secret=OPERATOR_SECRET, classifier=classifier)
        self.client, self._documented = app.test_client(), Documented(app)
        self._database = sqlite3.connect(folder / DATABASE_NAME)
        for client_id in CLIENTS:
            self.send_path("PUT", f"/v1/runs/{store.run_id}/clients/{client_id}", JOIN)

    def send_path(self, verb: str, path: str, message: Any) -> None:
        answer = self.client.open(
            path, method=verb, data=to_json(message), headers={"Authorization": f"Bearer {TOKEN}"}
        )
        assert answer.status_code == 200

    def send(self, request: Sent) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {TOKEN}", **request.headers}
        # Of a path that begins with two slashes the client would take its beginning for a host.
        url = f"http://localhost{request.path}"
        with self.client.open(url, method=request.verb, data=request.body, headers=headers) as answer:
            assert isinstance(answer, TestResponse)
            self._check_documented(request, answer)
            return answer.status_code, answer.data

    def _check_documented(self, request: Sent, answer: TestResponse) -> None:
        """Whatever comes back is what the OpenAPI document says, where the request is one of it at all."""
        sent = answer.request
        if answer.status_code == 405 or self._documented.find(request.verb, sent.path) is None:
            return
        if request.body and answer.status_code == 413:
            # Of a body that the operation would not have looked at.
            return
        self._documented.check_answer(
            request.verb, sent.path, answer.status_code, str(answer.mimetype), answer.data
        )

    def contents(self) -> tuple[list[Any], list[str]]:
        rows = [self._database.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES]
        blobs = sorted(path.name for path in (self.run.folder / "blobs").rglob("*") if path.is_file())
        return rows, blobs

    def close(self) -> None:
        self._database.close()
        self.run.store.close()


@pytest.fixture
def targets(
    empty_run: Path, server_bundle: Path, deployed: Path, tmp_path: Path
) -> Iterator[Callable[[], Target]]:
    """Makes one target after another: what is accepted may close a round."""
    bundle, classifier = load_bundle(server_bundle), FeatureClassifier(deployed)
    opened: list[Target] = []

    def make() -> Target:
        folder = tmp_path / f"run-{len(opened)}"
        folder.mkdir()
        shutil.copy(empty_run / DATABASE_NAME, folder)
        opened.append(Target(folder, bundle, classifier))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def check_accepted(target: Target) -> None:
    """Whatever is kept is a shard that this run can train on."""
    for record in target.run.store.shards(1):
        data = target.run.blobs.local_path(record.blob).read_bytes()
        shard = read_feature_shard(data, record.key, target.run.shard_spec)
        assert len(shard.sample_ids) == record.num_samples


def test_bent_requests_give_no_5xx_and_change_nothing(targets: Callable[[], Target]) -> None:
    rng = random.Random(SEED)
    target = targets()
    valid = valid_requests(target.run.store.run_id)
    before = target.contents()
    statuses: dict[int, int] = {}
    for number in range(NUM_REQUESTS):
        request = bend(rng.choice(valid), rng)
        status, body = target.send(request)
        statuses[status] = statuses.get(status, 0) + 1
        where = (
            f"request {number} of seed {SEED}: {request.verb} {request.path[:120]}: {status} {body[:200]!r}"
        )
        assert status < 500, where
        after = target.contents()
        if status >= 400:
            assert after == before, where
            if request.verb != "HEAD":
                try:
                    from_json(ErrorBody, body)
                except MessageError as error:
                    raise AssertionError(where) from error
        elif after != before:
            check_accepted(target)
            if target.run.store.reports(1):
                target = targets()
                after = target.contents()
        before = after
    print(f"{NUM_REQUESTS} requests: {dict(sorted(statuses.items()))}")  # noqa: T201 - for make fuzz
    if NUM_REQUESTS >= 1000:
        assert {200, 400, 401, 404, 405, 409} <= set(statuses), "every kind of answer was seen"
