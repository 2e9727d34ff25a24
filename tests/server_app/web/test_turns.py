"""Devices that wait for their turn: their questions are kept without a thread, plain and with TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask

from edge_runtime.server_client import ServerClient
from edge_runtime.turn import next_task
from gkt_core.wire.protocol import Task
from server_app import RunContext, create_app
from server_app.inviting import enrolled
from server_app.membership import change_client
from server_app.rounds.state import Joined
from server_app.store import RunStore
from server_app.turns import TurnWatch
from server_app.web.connections import Worker
from server_app.web.gunicorn_server import WebServer
from tests.conftest import LONGEST_SECONDS
from tests.server_app.server_fixtures import OPERATOR_SECRET, TOKEN
from tests.server_app.waiting import until
from tests.server_app.web.api_fixtures import JOIN

Files = tuple[Path, Path]
MINE, OTHER = "client-a", "client-b"
LONG = f"wait={int(min(LONGEST_SECONDS, 900))}"


class Served:
    """A run behind the real web server with one thread: what keeps it keeps everybody out."""

    def __init__(self, run: RunContext, tls: Files | None) -> None:
        self.run, self._tls = run, tls
        self.app: Flask = create_app(run, operator_secret=OPERATOR_SECRET, poll_seconds=0.05)
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = listener.getsockname()[1]
        self.server = WebServer(self.app, listener, tls=tls, num_threads=1)
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()
        self.bearers = {name: enrolled(run, name) for name in (MINE, OTHER)}
        self.root = f"/v1/runs/{run.store.run_id}"

    @property
    def worker(self) -> Worker:
        return self.server._worker

    def close(self) -> None:
        self.server.stop()
        self._thread.join(LONGEST_SECONDS)
        assert not self._thread.is_alive()
        self.app.extensions["gkt"].turns.close()

    def connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST_SECONDS)
        context = ssl.create_default_context(cafile=str(self._tls[0]))
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=LONGEST_SECONDS, context=context)

    def ask(self, connection: http.client.HTTPConnection, client_id: str, prefer: str = LONG) -> None:
        headers = {"Authorization": f"Bearer {self.bearers[client_id]}", "Prefer": prefer}
        connection.request("GET", f"{self.root}/clients/{client_id}/task", headers=headers)

    def call(self, verb: str, path: str, client_id: str, body: bytes | None = None) -> tuple[int, Any]:
        with contextlib.closing(self.connection()) as connection:
            headers = {"Authorization": f"Bearer {self.bearers[client_id]}"}
            connection.request(verb, self.root + path, body, headers)
            return answered(connection)

    def join(self, client_id: str) -> None:
        body = json.dumps({**vars_of(JOIN), "client_key": ""}).encode()
        assert self.call("PUT", f"/clients/{client_id}", client_id, body)[0] == 200

    def is_kept(self, *client_ids: str) -> bool:
        return sorted(self.worker._kept) == sorted(client_ids)


def vars_of(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__dataclass_fields__}


def answered(connection: http.client.HTTPConnection) -> tuple[int, Any]:
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@pytest.fixture
def served(run: RunContext, tls: Files | None) -> Iterator[Served]:
    made = Served(run, tls)
    made.join(MINE)
    yield made
    made.close()


def test_a_question_is_kept_without_a_thread_until_there_is_something_to_do(served: Served) -> None:
    with contextlib.closing(served.connection()) as waiting:
        served.ask(waiting, MINE)
        until(lambda: served.is_kept(MINE), "the question is kept")
        # The only thread is free for the one whose joining opens the round.
        served.join(OTHER)
        status, task = answered(waiting)
        assert (status, task["action"], task["round_num"]) == (200, "train", 1)
        assert served.is_kept()
        # The same connection goes on.
        served.ask(waiting, MINE)
        assert answered(waiting)[1]["action"] == "train"


def test_what_another_process_changes_wakes_it(served: Served) -> None:
    """As the trainer does: the web server is told nothing."""
    with contextlib.closing(served.connection()) as waiting:
        served.ask(waiting, MINE)
        until(lambda: served.is_kept(MINE), "the question is kept")
        store = RunStore.open(served.run.folder / "run.sqlite")
        assert store is not None
        store.apply(Joined(OTHER))
        store.close()
        assert answered(waiting)[1]["action"] == "train"


def test_a_wait_that_is_over_is_answered_and_the_connection_goes_on(served: Served) -> None:
    with contextlib.closing(served.connection()) as waiting:
        for _ in range(2):
            served.ask(waiting, MINE, "respond-async, wait=1")
            status, task = answered(waiting)
            assert (status, task["action"], task["retry_after_seconds"]) == (200, "wait", 0.05)
        assert served.is_kept()


def test_a_device_has_one_question(served: Served) -> None:
    with contextlib.closing(served.connection()) as first, contextlib.closing(served.connection()) as second:
        served.ask(first, MINE)
        until(lambda: served.is_kept(MINE), "the question is kept")
        served.ask(second, MINE)
        assert answered(first)[1]["action"] == "wait"
        until(lambda: served.is_kept(MINE), "the second one is kept")
        served.join(OTHER)
        assert answered(second)[1]["action"] == "train"


def test_a_peer_that_goes_is_forgotten(served: Served) -> None:
    waiting = served.connection()
    served.ask(waiting, MINE)
    until(lambda: served.is_kept(MINE), "the question is kept")
    waiting.close()
    until(lambda: served.is_kept() and not served.worker.nr_conns, "its connection is gone")
    watch: TurnWatch = served.app.extensions["gkt"].turns
    until(lambda: watch._thread is None, "nobody is looked after")


def test_a_request_behind_a_kept_one_is_answered_after_it(served: Served) -> None:
    with contextlib.closing(served.connection()) as waiting:
        served.ask(waiting, MINE)
        until(lambda: served.is_kept(MINE), "the question is kept")
        sock = waiting.sock
        assert sock is not None
        sock.sendall(b"GET /v1/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        served.join(OTHER)
        stream = sock.makefile("rb")
        said = b""
        while said.count(b"HTTP/1.1 200") < 2 or b'"ok"' not in said:
            said += stream.readline()
            if said.endswith(b"\r\n\r\n"):
                length = int(said.lower().rpartition(b"content-length: ")[2].split(b"\r\n")[0])
                said += stream.read(length)
        assert said.index(b'"train"') < said.index(b'"ok"')


def test_a_device_that_is_revoked_hears_of_it(served: Served) -> None:
    with contextlib.closing(served.connection()) as waiting:
        served.ask(waiting, MINE)
        until(lambda: served.is_kept(MINE), "the question is kept")
        change_client(served.run, MINE, "revoke")
        status, error = answered(waiting)
        assert status == 401 and "revoked" in error["message"]


def test_a_server_that_stops_answers_those_who_wait(run: RunContext) -> None:
    served = Served(run, None)
    served.join(MINE)
    with contextlib.closing(served.connection()) as waiting:
        served.ask(waiting, MINE)
        until(lambda: served.is_kept(MINE), "the question is kept")
        served.close()
        assert answered(waiting)[1]["action"] == "wait"


def test_what_is_no_preference_is_answered_at_once(served: Served) -> None:
    with contextlib.closing(served.connection()) as waiting:
        for prefer in ("", "wait", "wait=x", "wait=-1", "await=100", "wait=1e9", "respond-async"):
            served.ask(waiting, MINE, prefer)
            assert answered(waiting)[1]["action"] == "wait"


def test_a_device_sleeps_where_the_server_keeps_no_question(app: Flask, run: RunContext) -> None:
    """Of an earlier version, or behind something that answers itself: this transport is no socket."""
    slept: list[float] = []
    server = ServerClient("http://server", TOKEN, transport=httpx.WSGITransport(app=app))
    server.run_info()
    assert server.join(MINE, JOIN).action == "wait"
    task: Task = next_task(server, MINE, slept.append)
    server.close()
    assert task.action == "wait" and len(slept) == 1 and 0 < slept[0] <= 0.6
