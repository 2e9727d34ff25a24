"""Peers that say nothing, trickle, or leave: over real sockets, plain and with TLS, they keep nobody out."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, Response, request

from server_app.web.receiving import close_unread, receive
from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.certificates import make_certificate
from tests.server_app.web.test_web_server import serving

THREADS = 4
# More than there are threads.
PEERS = 4 * THREADS
HEAD = b"PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"

Files = tuple[Path, Path]


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask("test")

    @app.get("/")
    def hello() -> str:
        return "hello"

    @app.get("/nodelay")
    def nodelay() -> str:
        option = request.environ["gunicorn.socket"].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        return f"{option}"

    @app.put("/body")
    def body() -> str:
        return receive(tmp_path / "body", 1 << 20, look_at_floats=False).sha256

    @app.after_request
    def unread(response: Response) -> Response:
        close_unread()
        return response

    return app


def trusting(certificate: Files) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


def connect(port: int, tls: Files | None) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port), LONGEST_SECONDS)
    return peer if tls is None else trusting(tls).wrap_socket(peer, server_hostname="127.0.0.1")


def asked(port: int, tls: Files | None, path: str = "/") -> bytes:
    """What an honest peer is answered."""
    if tls is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_SECONDS)
    else:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=LONGEST_SECONDS, context=trusting(tls)
        )
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read()


@contextlib.contextmanager
def peers(port: int, tls: Files | None, first: bytes, num: int = PEERS) -> Iterator[list[socket.socket]]:
    """Connections that have said this and nothing more."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(num):
            made.append(stack.enter_context(connect(port, tls)))
            made[-1].sendall(first)
        yield made


def ended(peer: socket.socket) -> bytes:
    """What it is told before its connection ends."""
    said = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := peer.recv(65536):
            said += data
    return said


@pytest.mark.parametrize("first", [b"", b"G", HEAD], ids=["silent", "one byte", "half a head"])
def test_peers_without_a_whole_head_have_no_thread(app: Flask, tls: Files | None, first: bytes) -> None:
    # They could wait for as long as any test.
    with (
        serving(app, tls=tls, num_threads=THREADS, head_seconds=LONGEST_SECONDS) as port,
        peers(port, tls, first),
    ):
        assert asked(port, tls) == b"hello"


def test_half_a_handshake_has_no_thread(app: Flask, certificate: Files) -> None:
    with (
        serving(app, tls=certificate, num_threads=THREADS, head_seconds=LONGEST_SECONDS) as port,
        peers(port, None, b"\x16\x03\x01"),
    ):
        assert asked(port, certificate) == b"hello"


@pytest.mark.parametrize("first", [b"", HEAD], ids=["silent", "half a head"])
def test_a_head_that_does_not_come_ends(app: Flask, tls: Files | None, first: bytes) -> None:
    with serving(app, tls=tls, head_seconds=0.2) as port, peers(port, tls, first, 2) as made:
        assert [ended(peer) for peer in made] == [b"", b""]


def test_a_refused_body_is_not_waited_for(app: Flask, tls: Files | None) -> None:
    """Of a path that is not there, as of a request without the token, nobody reads the body."""
    first = HEAD.replace(b"/body", b"/none") + b"\r\nx"
    with serving(app, tls=tls, num_threads=THREADS) as port, peers(port, tls, first) as made:
        assert asked(port, tls) == b"hello"
        for peer in made:
            answer = peer.recv(65536)
            assert b" 404 " in answer and b"Connection: close" in answer
        # What it still sends is read, so that it could have come to read the answer.
        made[0].sendall(bytes(99_999))


def test_a_body_that_stalls_or_trickles_ends(
    app: Flask, tls: Files | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server_app.web.receiving._BEGINNING_SECONDS", 0.5)
    with serving(app, tls=tls, stall_seconds=1.0) as port, peers(port, tls, HEAD + b"\r\n", 2) as made:
        trickles, stalls = made
        said = b""
        trickles.settimeout(0.1)
        while not said:
            trickles.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                said = trickles.recv(65536)
        assert b" 408 " in said
        assert b" 408 " in stalls.recv(65536)


def test_beyond_the_limit_the_oldest_gives_way(app: Flask, tls: Files | None) -> None:
    options = {"num_threads": THREADS, "max_connections": 10, "head_seconds": LONGEST_SECONDS}
    with serving(app, tls=tls, **options) as port, peers(port, tls, b"", 30) as made:
        assert asked(port, tls) == b"hello"
        assert ended(made[0]) == b""


def test_descriptors_run_out_and_it_goes_on(tmp_path: Path) -> None:
    """In a process that may open few: more peers than that, then an honest one."""
    script = """
import resource, socket, sys, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from flask import Flask
from server_app.serving import bind
from server_app.web.gunicorn_server import WebServer
app = Flask("test")
app.add_url_rule("/", "hello", lambda: "hello")
listener = bind("127.0.0.1", 0)
server = WebServer(app, listener, num_threads=2, head_seconds=600.0, max_connections=4096)
# As if there were room: what was counted on may be taken by something else.
server._worker.worker_connections = 4096
threading.Thread(target=server.run, daemon=True).start()
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        port = int(process.stdout.readline())
        with peers(port, None, b"", 200):
            assert asked(port, None) == b"hello"
            assert asked(port, None) == b"hello"
        assert process.poll() is None
        process.stdin.close()


def test_what_only_asks_is_answered_at_once(app: Flask, tls: Files | None) -> None:
    with serving(app, tls=tls) as port:
        assert asked(port, tls, "/nodelay") == b"1"


def test_a_request_behind_an_upload(app: Flask, tls: Files | None) -> None:
    """Both in one piece: of the second no event of the socket tells."""
    upload = b"PUT /body HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 3\r\n\r\nabc"
    with serving(app, tls=tls) as port, connect(port, tls) as peer:
        peer.sendall(upload + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = ended(peer)
    assert said.count(b" 200 OK") == 2 and said.endswith(b"hello")


def test_a_body_is_asked_for_when_it_is_wanted(app: Flask) -> None:
    expecting = b"PUT %b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with serving(app) as port:
        with connect(port, None) as peer:
            peer.sendall(expecting % b"/none")
            assert peer.recv(65536).startswith(b"HTTP/1.1 404 ")
        with connect(port, None) as peer:
            peer.sendall(expecting % b"/body")
            assert peer.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            peer.sendall(b"abc")
            assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "body",
    [b"zz\r\nabc\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"3\r\nabcdef", b"3;x=\x00\r\nabc\r\n0\r\n\r\n"],
)
def test_a_chunked_body_is_refused_by_name(app: Flask, tls: Files | None, body: bytes) -> None:
    with serving(app, tls=tls) as port, connect(port, tls) as peer:
        peer.sendall(b"PUT /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        assert peer.recv(65536).startswith(b"HTTP/1.1 411 Length Required")


def test_a_peer_that_leaves_is_no_trouble_of_the_disk(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    failed: list[Exception] = []

    @app.errorhandler(OSError)
    def storage(error: Exception) -> tuple[str, int]:
        failed.append(error)
        return "", 503

    with serving(app) as port:
        with connect(port, None) as peer:
            peer.sendall(HEAD + b"\r\n" + b"x" * 1000)
            # A reset, as of a phone whose radio goes.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        assert asked(port, None) == b"hello"
    assert failed == []


def test_a_certificate_is_read_again(app: Flask, tmp_path: Path, certificate: Files) -> None:
    """While it serves: what a renewal writes, the next connection gets."""
    files = (tmp_path / "certificate.pem", tmp_path / "key.pem")
    for source, target in zip(certificate, files, strict=True):
        target.write_bytes(source.read_bytes())
    renewed = make_certificate(tmp_path / "new", "127.0.0.1")
    with serving(app, tls=files) as port:
        assert asked(port, certificate) == b"hello"
        files[0].write_bytes(renewed.certificate.read_bytes())
        # Half of it: the old one serves until the key is there.
        assert asked(port, certificate) == b"hello"
        files[1].write_bytes(renewed.key.read_bytes())
        assert asked(port, (renewed.certificate, renewed.key)) == b"hello"
