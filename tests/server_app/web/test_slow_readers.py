"""Peers that ask and do not read: their answers hold no thread and little memory, and end; others go on."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, Response, request, send_file

from server_app.web.peers import queueing
from server_app.web.peers.answering import shared_pieces
from tests.conftest import LONGEST_SECONDS
from tests.server_app.waiting import until
from tests.server_app.web.test_hostile_peers import Files, asked, ended, trusting
from tests.server_app.web.test_web_server import serving

THREADS = 4
# More than there are threads.
PEERS = 4 * THREADS
# More than the kernel keeps for a peer, both sides together.
BIG = bytes(range(256)) * (32 << 10)
WHOLE = b"w" * (3 << 19)
SHOWS = "Authorization: Bearer x\r\n"
ASKS = "GET {} HTTP/1.1\r\nHost: x\r\n{}\r\n"


class Unreadable(io.BytesIO):
    """A file whose disk fails in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= 6 << 20:
            raise OSError("the disk does not answer")
        return super().read(size)


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask("test")
    (tmp_path / "big").write_bytes(BIG)

    @app.get("/")
    def hello() -> str:
        return "hello"

    @app.get("/file")
    def file() -> Response:
        return send_file(tmp_path / "big", conditional=True, etag="an-etag")

    @app.get("/shared")
    def shared() -> Response:
        response = Response(shared_pieces(BIG))
        response.content_length = len(BIG)
        return response

    @app.get("/whole")
    def whole() -> Response:
        return Response(WHOLE)

    @app.get("/unknown-length")
    def unknown_length() -> Response:
        return Response(iter([WHOLE, b"", WHOLE]))

    @app.get("/broken")
    def broken() -> Response:
        response = send_file(Unreadable(BIG), mimetype="text/plain")
        response.content_length = len(BIG)
        return response

    return app


def narrow(port: int, tls: Files | None) -> socket.socket:
    """A connection that takes little ahead."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(LONGEST_SECONDS)
    sock.connect(("127.0.0.1", port))
    return sock if tls is None else trusting(tls).wrap_socket(sock, server_hostname="127.0.0.1")


@contextlib.contextmanager
def not_reading(
    port: int, tls: Files | None, path: str, headers: str = "", num: int = PEERS
) -> Iterator[list[socket.socket]]:
    """Peers that ask for it, of which the first has read the beginning of its answer and none reads more."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(num):
            made.append(stack.enter_context(narrow(port, tls)))
            made[-1].sendall(ASKS.format(path, headers).encode())
        yield made


def answers(peer: socket.socket, num: int = 1) -> list[tuple[int, bytes]]:
    """Status and body of the next answers."""
    with peer.makefile("rb") as stream:
        return [_answer(stream) for _ in range(num)]


def _answer(stream: io.BufferedReader) -> tuple[int, bytes]:
    status = int(stream.readline().split()[1])
    headers = http.client.parse_headers(stream)
    if headers["Transfer-Encoding"] != "chunked":
        return status, stream.read(int(headers["Content-Length"]))
    body = b""
    while size := int(stream.readline(), 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return status, body


@pytest.mark.parametrize("path", ["/file", "/shared", "/whole", "/unknown-length"])
def test_they_have_no_thread_and_get_all_of_it_later(app: Flask, tls: Files | None, path: str) -> None:
    with (
        # They could wait for as long as any test.
        serving(app, tls=tls, num_threads=THREADS, stall_seconds=LONGEST_SECONDS) as port,
        not_reading(port, tls, path) as made,
    ):
        assert asked(port, tls) == b"hello"
        expected = {"/whole": WHOLE, "/unknown-length": 2 * WHOLE}.get(path, BIG)
        # One after the other on the same connection: the next request waits behind the answer.
        made[0].sendall(ASKS.format("/", "").encode())
        assert answers(made[0], 2) == [(200, expected), (200, b"hello")]
        for peer in made[1:3]:
            assert answers(peer) == [(200, expected)]


def test_a_part_of_a_file(app: Flask, tls: Files | None) -> None:
    part = 'Range: bytes=100-\r\nIf-Range: "an-etag"\r\n'
    with (
        serving(app, tls=tls, num_threads=THREADS, stall_seconds=LONGEST_SECONDS) as port,
        not_reading(port, tls, "/file", part) as made,
    ):
        assert asked(port, tls) == b"hello"
        assert answers(made[0]) == [(206, BIG[100:])]


@pytest.mark.parametrize("reads", [False, True], ids=["nothing", "a byte now and then"])
def test_who_reads_too_slowly_is_left(app: Flask, tls: Files | None, reads: bool) -> None:
    with (
        serving(app, tls=tls, num_threads=THREADS, stall_seconds=1.0) as port,
        not_reading(port, tls, "/file", num=2) as made,
    ):
        if reads:
            begun = threading.Event()

            def trickle() -> None:
                with contextlib.suppress(OSError, ValueError):
                    while not begun.wait(0.05):
                        made[0].recv(1)

            reader = threading.Thread(target=trickle)
            reader.start()
        until(lambda: _is_gone(made[1]), "the connection ends")
        if reads:
            begun.set()
            reader.join()
        for peer in made:
            assert len(ended(peer)) < len(BIG)
        assert asked(port, tls) == b"hello"


def _is_gone(peer: socket.socket) -> bool:
    """Whether the server has ended the connection, which the kernel knows without anything being read."""
    state = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state != 1


def test_what_is_in_memory_is_bounded(app: Flask, tls: Files | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.web.peers.answering.MOST_UNSENT_BYTES", 3 * len(WHOLE))
    with (
        serving(app, tls=tls, num_threads=THREADS, stall_seconds=LONGEST_SECONDS) as port,
        not_reading(port, tls, "/whole") as made,
    ):
        assert asked(port, tls) == b"hello"
        until(lambda: sum(map(_is_gone, made)) >= PEERS - 3, "memory is given back")
        assert asked(port, tls) == b"hello"
        left = [peer for peer in made if not _is_gone(peer)]
        assert left and [answers(peer) for peer in left] == [[(200, WHOLE)]] * len(left)


def test_a_file_that_cannot_be_read_to_its_end_ends_its_connection(app: Flask, tls: Files | None) -> None:
    with serving(app, tls=tls) as port, not_reading(port, tls, "/broken", num=1) as made:
        with contextlib.suppress(ssl.SSLError):
            assert len(ended(made[0])) < len(BIG)
        assert asked(port, tls) == b"hello"


def with_long_answers(app: Flask) -> tuple[threading.Semaphore, threading.Event]:
    """Let /v1/long be answered when the event is set; whoever has a thread releases the semaphore."""
    goes_on, waiting = threading.Event(), threading.Semaphore(0)

    @app.get("/v1/long")
    def long() -> str:
        waiting.release()
        goes_on.wait(LONGEST_SECONDS)
        return request.path

    return waiting, goes_on


def test_too_many_requests_at_once_are_to_come_again(
    app: Flask, tls: Files | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(queueing.MOST_ASKED, queueing.KNOWN, PEERS)
    monkeypatch.setattr(queueing, "MOST_OF_A_SECRET", PEERS + 1)
    waiting, goes_on = with_long_answers(app)
    with (
        serving(app, tls=tls, num_threads=THREADS, stall_seconds=LONGEST_SECONDS) as port,
        not_reading(port, tls, "/v1/long", SHOWS, num=PEERS) as made,
    ):
        for _ in range(THREADS):
            waiting.acquire()
        # The last of them may be on its way still: then this one is asked before it, and it is refused.
        with not_reading(port, tls, "/v1/long", SHOWS, num=2) as late:
            response = http.client.HTTPResponse(late[1])
            response.begin()
            assert response.status == 503 and response.headers["Retry-After"] == "2"
            assert b"ask again" in response.read()
            # Who shows nothing waits in another queue.
            assert asked(port, tls) == b"hello"
            goes_on.set()
            assert {answers(peer)[0][0] for peer in [*made, late[0]]} <= {200, 503}
        assert asked(port, tls) == b"hello"


def test_a_device_has_its_share_of_the_threads_and_the_others_theirs(
    app: Flask, tls: Files | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "MOST_OF_A_DEVICE", THREADS - 1)
    waiting, goes_on = with_long_answers(app)
    one, other = (f"Authorization: Bearer device~{name}~{'s' * 43}\r\n" for name in ("one", "other"))
    with (
        serving(app, tls=tls, num_threads=THREADS, stall_seconds=LONGEST_SECONDS) as port,
        not_reading(port, tls, "/v1/long", one, num=THREADS - 1) as made,
    ):
        for _ in made:
            waiting.acquire()
        with not_reading(port, tls, "/v1/long", one, num=1) as more:
            ((status, body),) = answers(more[0])
            assert status == 503 and b"requests of this device" in body
        # As many come as before: there is a thread for another one.
        with not_reading(port, tls, "/v1/long", other, num=1) as else_:
            assert waiting.acquire(timeout=LONGEST_SECONDS)
            goes_on.set()
            assert [answers(peer) for peer in [*made, *else_]] == [[(200, b"/v1/long")]] * THREADS
        # What was answered counts no more.
        with not_reading(port, tls, "/v1/long", one, num=1) as again:
            assert answers(again[0]) == [(200, b"/v1/long")]
