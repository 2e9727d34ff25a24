"""Messages whose bodies come a byte now and then hold no thread, whoever sends them; long ones few."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gkt_core.wire.online_features import max_inference_bytes
from server_app import create_app
from server_app.members.inviting import enrolled
from server_app.run_folder import RunContext
from server_app.web.classifier import FeatureClassifier
from server_app.web.connections import Worker
from tests.conftest import LONGEST_SECONDS
from tests.server_app.server_fixtures import CLIENTS, FEATURE_SHAPE, OPERATOR_SECRET, operator
from tests.server_app.web.test_hostile_peers import Files, asked, connect, ended
from tests.server_app.web.test_web_server import serving

# As many as the server has, and what one secret may hold of them.
THREADS, EACH = 6, 4
PEERS = 16
LIVE = "/v1/health/live"
ROUTES = {
    "credential": "PUT /v1/runs/{run}/clients/{me}/credential",
    "join": "PUT /v1/runs/{run}/clients/{me}",
    "report": "PUT /v1/runs/{run}/rounds/1/clients/{me}/report",
    "infer": "POST /v1/infer",
    "enrolments": "POST /v1/runs/{run}/operator/enrolments",
}


@pytest.fixture
def bearer(run: RunContext) -> str:
    return enrolled(run, CLIENTS[0])


@pytest.fixture
def port(run: RunContext, tls: Files | None, deployed: Path, bearer: str) -> Iterator[int]:
    app = create_app(run, operator_secret=OPERATOR_SECRET, classifier=FeatureClassifier(deployed))
    with serving(app, tls=tls, num_threads=THREADS, stall_seconds=LONGEST_SECONDS) as port:
        yield port


def head(run: RunContext, bearer: str, route: str, num_bytes: int, more: str = "") -> bytes:
    line = ROUTES[route].format(run=run.store.run_id, me=CLIENTS[0])
    return (
        f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n{more}"
        f"Content-Length: {num_bytes}\r\n\r\n"
    ).encode()


# A connection with TLS is read or written, never both by two threads.
AT_ONCE = threading.Lock()


@contextlib.contextmanager
def trickling(port: int, tls: Files | None, first: bytes) -> Iterator[list[socket.socket]]:
    """Peers that have sent this head, and send a byte of a body now and then."""
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connect(port, tls)) for _ in range(PEERS)]
        for peer in peers:
            peer.sendall(first + b"{")
        is_over = threading.Event()

        def trickle() -> None:
            while not is_over.wait(0.1):
                for peer in peers:
                    with contextlib.suppress(OSError), AT_ONCE:
                        peer.sendall(b" ")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            yield peers
        finally:
            is_over.set()
            thread.join()


@pytest.mark.parametrize("route", list(ROUTES))
@pytest.mark.parametrize("known", [True, False], ids=["a device", "nobody"])
def test_a_message_has_no_thread_before_it_is_there(
    run: RunContext, port: int, tls: Files | None, bearer: str, route: str, known: bool
) -> None:
    first = head(run, bearer if known else "nobody's", route, 16_000)
    with trickling(port, tls, first):
        assert b"ok" in asked(port, tls, LIVE)


def test_one_that_does_not_come_ends(
    run: RunContext, tls: Files | None, bearer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "message_seconds", 0.2)
    with (
        serving(create_app(run), tls=tls, num_threads=THREADS) as port,
        trickling(port, tls, head(run, bearer, "report", 16_000)) as made,
    ):
        assert [ended(peer) for peer in made] == [b""] * PEERS


@pytest.mark.parametrize("route", ["credential", "report", "enrolments"])
def test_a_message_is_small(run: RunContext, port: int, tls: Files | None, bearer: str, route: str) -> None:
    shown = operator() if route == "enrolments" else bearer
    with trickling(port, tls, head(run, shown, route, 400_000)) as made:
        for peer in made:
            said = peer.recv(65536)
            assert b" 413 " in said and b"Connection: close" in said


@pytest.mark.parametrize("route", ["join", "infer"])
def test_one_device_holds_few_threads_with_long_ones(
    run: RunContext, port: int, tls: Files | None, bearer: str, route: str
) -> None:
    num_bytes = 400_000 if route == "join" else max_inference_bytes(FEATURE_SHAPE)
    with trickling(port, tls, head(run, bearer, route, num_bytes)) as made:
        assert b"ok" in asked(port, tls, LIVE)
        _some_are_refused(made)


@pytest.mark.parametrize("route", ["credential", "join", "report"])
def test_who_waits_to_be_asked_holds_few(
    run: RunContext, port: int, tls: Files | None, bearer: str, route: str
) -> None:
    """Expect: 100-continue: only the application knows whether the body is wanted."""
    first = head(run, bearer, route, 16_000, "Expect: 100-continue\r\n")
    with trickling(port, tls, first) as made:
        assert b"ok" in asked(port, tls, LIVE)
        _some_are_refused(made)


def _some_are_refused(made: list[socket.socket]) -> None:
    """All but as many as one secret may hold."""
    refused = 0
    for peer in made:
        peer.settimeout(0.5)
        with contextlib.suppress(TimeoutError), AT_ONCE:
            refused += b" 503 " in peer.recv(65536)
    assert refused >= PEERS - EACH
