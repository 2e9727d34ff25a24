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
import sqlalchemy as sa
from flask import Flask

from edge_runtime.server_client import ServerClient
from edge_runtime.turn import next_task
from gkt_core.wire.credentials import ROTATE_HEADER, new_secret, read_bearer, secret_sha256
from gkt_core.wire.protocol import Task
from server_app import RunContext, create_app
from server_app.members.inviting import enrolled
from server_app.members.membership import change_client
from server_app.rounds.state import Joined, Noted
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
        self.num_handled = 0
        self.server = WebServer(self._handle, listener, tls=tls, num_threads=1)
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()
        self.bearers = {name: enrolled(run, name) for name in (MINE, OTHER)}
        self.root = f"/v1/runs/{run.store.run_id}"

    def _handle(self, environ: Any, start_response: Any) -> Any:
        self.num_handled += 1
        return self.app(environ, start_response)

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


def test_a_question_behind_the_same_one_takes_nobodys_place(served: Served) -> None:
    """Both are answered when another connection of the device asks, and none is kept beside that."""
    first, second = served.connection(), served.connection()
    with contextlib.closing(first), contextlib.closing(second):
        served.ask(first, MINE)
        until(lambda: served.is_kept(MINE), "the question is kept")
        peer = served.worker._kept[MINE]
        sock = first.sock
        assert sock is not None
        sock.sendall(bytes(peer.head))
        until(lambda: peer.parser.unreader.buf.getvalue() == bytes(peer.head), "the next one is here")
        served.ask(second, MINE)
        said = b""
        while said.count(b'"action"') < 2:
            said += (more := sock.recv(65536))
            assert more
        assert said.count(b"HTTP/1.1 200") == said.count(b'"wait"') == 2
        until(lambda: served.is_kept(MINE) and served.worker._kept[MINE] is not peer, "the other one is kept")
        watch: TurnWatch = served.app.extensions["gkt"].turns
        assert len(watch._waiting) == 1
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


@pytest.mark.parametrize("action", ["re-enroll", "rotate"])
def test_a_secret_that_ends_or_is_to_be_replaced_is_told_at_once(served: Served, action: str) -> None:
    with contextlib.closing(served.connection()) as waiting:
        served.ask(waiting, MINE)
        until(lambda: served.is_kept(MINE), "the question is kept")
        # Of another device it is nobody's affair.
        served.run.store.credentials.ask_rotation(OTHER)
        if action == "rotate":
            change_client(served.run, MINE, "rotate")
            response = waiting.getresponse()
            assert (response.status, response.getheader(ROTATE_HEADER)) == (200, "1")
            assert json.loads(response.read())["action"] == "wait"
        else:
            served.run.store.credentials.end(MINE, revoked=False)
            status, error = answered(waiting)
            assert status == 401 and "was replaced" in error["message"]


def test_the_same_question_again_is_kept_without_the_application(served: Served) -> None:
    before = served.num_handled
    with contextlib.closing(served.connection()) as waiting:
        dates = set()
        for _ in range(3):
            served.ask(waiting, MINE, "wait=1")
            response = waiting.getresponse()
            assert response.status == 200 and json.loads(response.read())["action"] == "wait"
            dates.add(response.getheader("Date"))
        assert served.num_handled == before + 1 and len(dates) == 3, "an answer is as old as it says"
        # It is no other question: of other headers the application decides.
        served.ask(waiting, MINE, "wait=2")
        until(lambda: served.is_kept(MINE), "the question is kept")
        assert served.num_handled == before + 2
        served.join(OTHER)
        assert answered(waiting)[1]["action"] == "train"


@pytest.mark.parametrize("ends", ["revoke", "end", "replace"])
def test_a_secret_that_ended_between_two_questions_holds_no_more(served: Served, ends: str) -> None:
    """Also where the watch looked a moment before: it looks again at what is kept."""
    with contextlib.closing(served.connection()) as waiting:
        served.ask(waiting, MINE, "wait=1")
        assert answered(waiting)[1]["action"] == "wait"
        known = served.run.store.credentials
        if ends == "replace":
            bearer = read_bearer(served.bearers[MINE])
            assert bearer is not None
            known.replace(MINE, bearer.secret, secret_sha256(new_secret()))
        else:
            known.end(MINE, revoked=ends == "revoke")
        served.ask(waiting, MINE, "wait=1")
        status, error = answered(waiting)
        assert status == 401 and ("was revoked" if ends == "revoke" else "was replaced") in error["message"]


def test_what_is_told_is_new_where_something_has_changed(served: Served) -> None:
    """Nobody gets a turn of it; but who asks once more is told by the application."""
    before = served.num_handled
    with contextlib.closing(served.connection()) as waiting:

        def asked() -> bool:
            served.ask(waiting, MINE, "wait=1")
            assert answered(waiting)[1]["action"] == "wait"
            return served.num_handled == before + 2

        assert not asked()
        served.run.store.apply(Noted("changed", "something"))
        until(asked, "the application is asked")


def test_a_storage_that_does_not_answer_is_said_to_those_who_ask_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(served.connection()) as waiting:

        def status() -> int:
            served.ask(waiting, MINE, "wait=1")
            return answered(waiting)[0]

        def silent() -> None:
            raise sa.exc.OperationalError(None, None, Exception("disk I/O error"))

        assert status() == 200
        monkeypatch.setattr(served.run.store, "state", silent)
        until(lambda: status() == 503, "it is said")


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
