"""Floods of whole requests by who shows no secret, or an invented one: who is known is answered as ever."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator

import pytest

from server_app import create_app
from server_app.members.inviting import enrolled
from server_app.run_folder import RunContext
from server_app.web.peers import queueing
from tests.conftest import LONGEST_SECONDS
from tests.server_app.server_fixtures import CLIENTS, OPERATOR_SECRET
from tests.server_app.waiting import until
from tests.server_app.web.test_hostile_peers import Files, asked, connect, ended, trusting
from tests.server_app.web.test_web_server import serving

CROWD, BURST, ASKED = 24, 200, 20
FLOODS = {
    "nothing shown": "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "invented secrets": (
        "GET /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer device~client-a~{:043}\r\n\r\n"
    ),
    "probes of health": "GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n",
}


@contextlib.contextmanager
def flooded(port: int, tls: Files | None, kind: str) -> Iterator[list[int]]:
    """Crowds that send many requests in one go, again and again; gives how many connections there were."""
    is_over, made = threading.Event(), [0]

    def flood(number: int) -> None:
        while not is_over.is_set():
            with contextlib.suppress(OSError), connect(port, tls) as peer:
                made[0] += 1
                peer.sendall(
                    "".join(FLOODS[kind].format(BURST * number + each) for each in range(BURST)).encode()
                )
                ended(peer)

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(CROWD)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def status_of(port: int, tls: Files | None, bearer: str, path: str = "/v1/runs") -> int:
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_SECONDS)
        if tls is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=LONGEST_SECONDS, context=trusting(tls))
    )
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
        return connection.getresponse().status


@pytest.mark.parametrize("kind", FLOODS)
def test_who_is_known_is_answered_and_who_comes_gets_in(
    run: RunContext, tls: Files | None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer places than the crowd takes.
    monkeypatch.setitem(queueing.MOST_ASKED, queueing.STRANGER, CROWD // 2)
    known, newcomer = (enrolled(run, name) for name in CLIENTS[:2])
    app = create_app(run, operator_secret=OPERATOR_SECRET)
    with serving(app, tls=tls, num_threads=4, stall_seconds=LONGEST_SECONDS) as port:
        assert status_of(port, tls, known) == 200
        with flooded(port, tls, kind) as made:
            until(lambda: made[0] > 2 * CROWD, "the crowd comes again and again")
            assert [status_of(port, tls, known) for _ in range(ASKED)] == [200] * ASKED
            # Whose secret nobody has looked at yet comes in among the strangers, as they do.
            until(lambda: status_of(port, tls, newcomer) == 200, "a newcomer is let in")
            assert [status_of(port, tls, newcomer) for _ in range(ASKED)] == [200] * ASKED
            if kind != "probes of health":
                assert [status_of(port, tls, "", "/healthz") for _ in range(ASKED)] == [200] * ASKED
        assert b"ok" in asked(port, tls, "/v1/health/live")


def test_of_many_requests_in_one_go_a_stranger_has_the_first_answered(
    run: RunContext, tls: Files | None
) -> None:
    with serving(create_app(run), tls=tls) as port, connect(port, tls) as peer:
        peer.sendall(FLOODS["nothing shown"].encode() * BURST)
        with contextlib.suppress(ConnectionError):
            assert ended(peer).count(b"HTTP/1.1 405 ") == 1


def test_a_secret_is_known_for_a_while_only() -> None:
    now, queue = [0.0], queueing.Queueing(lambda: now[0])
    queue.is_checked = True
    head = b"GET /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer device~a~b\r\n\r\n"
    assert queue.take(head).queue == queueing.STRANGER
    queue.remember("Bearer device~a~b")
    assert queue.take(head).queue == queueing.KNOWN
    # In a body it shows nothing.
    hidden = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n\r\nAuthorization: Bearer device~a~b\r\n\r\n"
    assert queue.take(hidden).queue == queueing.STRANGER
    now[0] = 61.0
    assert queue.take(head).queue == queueing.STRANGER
    for path in (b"/healthz", b"/readyz", b"/v1/health", b"/v1/health/live", b"/birds/healthz"):
        assert queue.take(b"GET " + path + b" HTTP/1.1\r\n\r\n").queue == queueing.HEALTH


def test_who_asks_one_thing_after_the_other_keeps_the_connection(run: RunContext) -> None:
    """As a browser does that shows no secret."""
    with serving(create_app(run)) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_SECONDS)
        with contextlib.closing(connection):
            used = set()
            for _ in range(3):
                connection.request("GET", "/v1/health/live")
                assert b"ok" in connection.getresponse().read()
                assert connection.sock is not None
                used.add(connection.sock.getsockname())
            assert len(used) == 1
