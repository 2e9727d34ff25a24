"""Bent requests over real sockets to ``gkt serve``, plain and with its own certificate.

No answer is a 5xx, a refusal changes nothing, an honest request is answered afterwards, and neither a thread
nor a descriptor is left. ``GKT_FUZZ_REQUESTS`` and ``GKT_FUZZ_SEED`` (``make fuzz``) say how many and which.
"""

from __future__ import annotations

import os
import random
import ssl
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from gkt_core.wire.credentials import DEVICE, Bearer, new_secret, secret_sha256
from gkt_core.wire.protocol import ErrorBody, from_json, to_json
from gkt_core.wire.shards import read_feature_shard
from server_app.run_folder import DATABASE_NAME, RunContext, open_run
from server_app.store.folder import INCOMING
from server_app.web.gunicorn_server import WEB_THREADS
from tests.conftest import LONGEST_SECONDS
from tests.server_app.served import Serve, StartServer
from tests.server_app.waiting import at_once, until
from tests.server_app.web.fuzzing import JOIN, Sent, bend, valid_requests
from tests.server_app.web.manners import Answer, Manner, exchange, manner_of, with_length

# In all; plain and TLS have a quarter each, as each costs a connection.
NUM_REQUESTS = int(os.environ.get("GKT_FUZZ_REQUESTS", "240")) // 4
SEED = int(os.environ.get("GKT_FUZZ_SEED", "0"))
# Of the run itself what devices change; its trainer gives signs of life beside it.
RUNS = "(SELECT config, state FROM runs)"
TABLES = (RUNS, "clients", "shards", "reports", "rounds", "credentials", "enrolments")
# A part that is reported is closed: the next device goes on.
DEVICES = 2 + NUM_REQUESTS // 50
HONEST_EVERY = 20
AT_ONCE = 8


class Served:
    """A server in the middle of a round, all that it keeps, and what its process holds."""

    def __init__(self, server: Serve) -> None:
        self.server, self.port = server, int(server.info["url"].rpartition(":")[2])
        self.run: RunContext = open_run(server.data_dir)
        self.process = psutil.Process(server.process.pid)
        self.tls: ssl.SSLContext | None = None
        if server.info["url"].startswith("https"):
            self.tls = ssl.create_default_context(cafile=str(server.data_dir / "authority.pem"))
        self._engine = sa.create_engine(f"sqlite:///{server.data_dir / DATABASE_NAME}")
        self.names = [f"client-{number:04d}" for number in range(DEVICES + 1)]
        self.bearers = {name: self._joined(name) for name in self.names}
        self.valid: list[Sent] = []
        self.go_on()

    def go_on(self) -> None:
        """Let the next device speak."""
        name = self.name = self.names.pop(0)
        assert self.names, "the last one keeps the round open"
        operator = {"Authorization": f"Bearer {self.server.operator()}"}
        device = {"Authorization": f"Bearer {self.bearers[name]}"}
        self.valid = [
            replace(each, headers={**device, **each.headers})
            for each in valid_requests(self.run.store.run_id, name, operator)
        ]
        self.task = Sent("GET", ("v1", "runs", self.run.store.run_id, "clients", name, "task"), b"", device)

    def _joined(self, name: str) -> str:
        credentials, secret = self.run.store.credentials, new_secret()
        credentials.enrol(credentials.open_enrolment(LONGEST_SECONDS), name, secret_sha256(secret), "")
        bearer = Bearer(DEVICE, name, secret).text()
        path = ("v1", "runs", self.run.store.run_id, "clients", name)
        join = Sent("PUT", path, to_json(JOIN), {"Authorization": f"Bearer {bearer}"})
        assert [answer.status for answer in self.send(join)] == [200]
        return bearer

    def send(self, request: Sent) -> list[Answer]:
        return exchange(self.port, self.tls, Manner("whole", (with_length(request),)))

    def honest(self) -> None:
        """A device asks for its task, as before."""
        (answer,) = self.send(self.task)
        assert answer.status == 200 and b'"train"' in answer.body, answer

    def contents(self) -> tuple[list[Any], list[str]]:
        with self._engine.connect() as connection:
            rows = [
                [tuple(row) for row in connection.execute(sa.text(f"SELECT * FROM {table}"))]
                for table in TABLES
            ]
        blobs = self.server.data_dir / "blobs"
        kept = (path for path in blobs.rglob("*.safetensors") if INCOMING not in path.parts)
        return rows, sorted(path.name for path in kept)

    def held(self) -> tuple[int, int]:
        """Threads of the process, and its descriptors but for those of the database's connections."""
        database = sum(Path(each.path).name.startswith(DATABASE_NAME) for each in self.process.open_files())
        return self.process.num_threads(), self.process.num_fds() - database

    def close(self) -> None:
        self._engine.dispose()
        self.run.store.close()


def check_kept(served: Served) -> None:
    """Whatever is kept is a shard that this run can train on."""
    for record in served.run.store.shards(1):
        data = served.run.blobs.local_path(record.blob).read_bytes()
        shard = read_feature_shard(data, record.key, served.run.shard_spec)
        assert len(shard.sample_ids) == record.num_samples


def check_refusal(answer: Answer, where: str) -> None:
    assert answer.status < 500, where
    if answer.status >= 400 and answer.is_json and answer.body:
        from_json(ErrorBody, answer.body)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"], ids=["plain", "tls"])
def test_bent_requests_over_sockets(server_bundle: Path, serve: StartServer, host: str) -> None:
    options = ("--clients", DEVICES + 1, "--shard-samples", 8, "--codec", "uint8", "--no-quarantine")
    server = serve("--artifacts", server_bundle, "--host", host, *options)
    served = Served(server)
    assert (served.tls is not None) == (host == "0.0.0.0")
    try:
        _fuzz(served)
    finally:
        served.close()
    assert "Traceback" not in server.err.read_text()


def _difference(before: tuple[list[Any], list[str]], after: tuple[list[Any], list[str]]) -> list[Any]:
    rows = zip(TABLES, before[0], after[0], strict=True)
    changed: list[Any] = [(table, [row for row in now if row not in then]) for table, then, now in rows]
    return [*(each for each in changed if each[1]), sorted({*before[1]} ^ {*after[1]})]


def _fuzz(served: Served) -> None:
    rng = random.Random(f"{SEED}/{served.server.info['url'][:5]}")
    # Threads and connections to the database that are kept are there from now on.
    at_once(*[served.honest] * AT_ONCE)
    before, threads, descriptors = served.contents(), *served.held()
    statuses, manners = Counter[int](), Counter[str]()
    for number in range(NUM_REQUESTS):
        requests = [bend(rng.choice(served.valid), rng) for _ in range(rng.choice((2, 2, 3)))]
        manner = manner_of(rng, requests)
        answers = exchange(served.port, served.tls, manner)
        manners[manner.name] += 1
        shown = [(each.status, each.body[:100]) for each in answers]
        where = f"{number} of seed {SEED}, {manner.name}: {manner.pieces[0][:300]!r}: {shown}"
        for answer in answers:
            statuses[answer.status] += 1
            check_refusal(answer, where)
        assert answers or not manner.is_whole, where
        after = served.contents()
        if after != before:
            assert any(answer.status < 300 for answer in answers), f"{where}: {_difference(before, after)}"
            check_kept(served)
            if served.name in served.run.store.reports(1):
                served.go_on()
        before = after
        if number % HONEST_EVERY == 0:
            served.honest()
    served.honest()
    # A thread that was stuck would hold its connection; those of the pool stay, and are not more than it has.
    until(lambda: served.held()[1] <= descriptors, "the end of all connections")
    assert served.process.num_threads() <= threads + WEB_THREADS - AT_ONCE
    incoming = served.server.data_dir / "blobs" / INCOMING
    until(lambda: not incoming.exists() or not any(incoming.iterdir()), "the removal of what was cut off")
    print(f"{NUM_REQUESTS} connections: {dict(sorted(statuses.items()))}, {dict(manners)}")  # noqa: T201 - for make fuzz
    if NUM_REQUESTS >= 1000:
        assert {200, 400, 411} <= set(statuses), "every kind of answer was seen"
        assert len(manners) == 7
