"""The web server on a real socket: stalled uploads, TLS, bodies in pieces, connections that are kept."""

import contextlib
import functools
import hashlib
import http.client
import json
import math
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask, Response, request

from edge_runtime.server_client import ServerClient
from gkt_core.data.private_data import save_private_data
from gkt_core.errors import ConfigError, ServerUnavailableError
from gkt_core.wire.protocol import PROTOCOL_VERSION, RunInfo, RunList, to_json
from server_app.serving import bind
from server_app.web.certificates import server_context
from server_app.web.gunicorn_server import WebServer
from server_app.web.receiving import body_chunks, close_unread, receive
from tests.conftest import LONGEST_SECONDS, Gkt
from tests.server_app.server_fixtures import private_data


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask("test")
    app.config["MAX_CONTENT_LENGTH"] = 8 << 20

    @app.get("/")
    def hello() -> str:
        return "hello"

    @app.put("/<name>")
    def put(name: str) -> dict[str, object]:
        arrived = receive(tmp_path / name, 1 << 20, look_at_floats=True)
        return {
            "sha256": arrived.sha256,
            "largest": arrived.largest if math.isfinite(arrived.largest) else -1,
            "socket": "gunicorn.socket" in request.environ,
        }

    @app.errorhandler(413)
    def too_large(error: Exception) -> tuple[str, int]:
        return "too large", 413

    @app.after_request
    def unread(response: Response) -> Response:
        close_unread()
        return response

    @app.put("/pieces/<name>")
    def pieces(name: str) -> dict[str, list[int]]:
        return {"sizes": [len(chunk) for chunk in body_chunks()]}

    return app


@contextlib.contextmanager
def serving(app: Flask, **options: Any) -> Iterator[int]:
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = WebServer(app, listener, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield port
    finally:
        server.stop()
        thread.join(LONGEST_SECONDS)
        assert not thread.is_alive()


def put(
    connection: http.client.HTTPConnection, path: str, body: bytes | Iterator[bytes], **headers: str
) -> tuple[int, bytes]:
    connection.request("PUT", path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_bodies_arrive_whole_and_connections_are_kept(app: Flask, tmp_path: Path) -> None:
    floats = np.random.default_rng(0).random(1_000_003, dtype=np.float32)
    spoilt = floats.copy()
    spoilt[700_000] = np.inf
    with serving(app) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_SECONDS)
        header = (12).to_bytes(8, "little") + b"of letters.."
        for name, body, largest in (
            ("floats", header + floats.tobytes(), float(np.abs(floats).max())),
            ("spoilt", header + spoilt.tobytes(), -1),
            ("bare", spoilt.tobytes(), -1),
            ("odd", b"abc", -1),
        ):
            status, answer = put(connection, f"/{name}", body)
            assert status == 200 and hashlib.sha256(body).hexdigest().encode() in answer
            told = json.loads(answer)
            assert told["largest"] == largest and told["socket"]
            assert (tmp_path / name).read_bytes() == body
        # All but the last piece are full, so that no float is split.
        status, answer = put(connection, "/pieces/x", bytes(600_000))
        assert answer.strip() == b'{"sizes":[262144,262144,75712]}'
        # No device sends a body of unknown length, and its reading has gone wrong in many a server.
        status, answer = put(connection, "/chunked", iter([b"a" * 70_000, b"b" * 70_001]))
        assert status == 411 and b"Content-Length" in answer and not (tmp_path / "chunked").exists()
        assert put(connection, "/large", bytes(9 << 20))[0] == 413
        connection.close()


@pytest.mark.parametrize(("shows", "answered"), [(b"Authorization: Bearer x\r\n", 3), (b"", 1)])
def test_requests_that_follow_each_other_at_once(app: Flask, shows: bytes, answered: int) -> None:
    """Of who is known each is answered; of a stranger, whom it would cost nothing, the first."""
    with serving(app) as port, socket.create_connection(("127.0.0.1", port), LONGEST_SECONDS) as peer:
        one = b"PUT /a HTTP/1.1\r\nHost: x\r\n" + shows + b"Content-Length: 3\r\n\r\nabc"
        last = b"GET / HTTP/1.1\r\nHost: x\r\n" + shows + b"Connection: close\r\n\r\n"
        peer.sendall(one + one + last)
        answer = b""
        while data := peer.recv(65536):
            answer += data
    assert answer.count(b"200 OK") == answered and answer.endswith(b"hello") is (answered == 3)


def test_stalled_uploads_stop_nobody_and_end(app: Flask) -> None:
    head = b"PUT /stalled HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"
    with serving(app, num_threads=8, stall_seconds=1.0) as port, contextlib.ExitStack() as stack:
        peers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), LONGEST_SECONDS))
            for _ in range(6)
        ]
        for peer in peers:
            peer.sendall(head + b"x" * 100_000)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_SECONDS)
        assert put(connection, "/seventh", b"abcd")[0] == 200
        connection.close()
        # More than there are threads, even: each stall ends, and its thread is free again.
        peers += [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), LONGEST_SECONDS))
            for _ in range(6)
        ]
        for peer in peers[6:]:
            peer.sendall(head)
        for peer in peers:
            assert b"408" in peer.recv(100)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_SECONDS)
        assert put(connection, "/after", b"abcd")[0] == 200
        connection.close()


def test_tls(app: Flask, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    body = np.random.default_rng(0).bytes(1_000_000)
    with serving(app, tls=certificate) as port:
        trusted = ssl.create_default_context(cafile=str(certificate[0]))
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=LONGEST_SECONDS, context=trusted)
        for name in ("first", "second"):
            assert put(connection, f"/{name}", body)[0] == 200
            assert (tmp_path / name).read_bytes() == body
        connection.close()


def test_a_device_trusts_the_certificate_that_it_is_given(
    app: Flask, certificate: tuple[Path, Path], gkt: Gkt, tmp_path: Path
) -> None:
    messages = {
        "runs": RunList(PROTOCOL_VERSION, ["one"]),
        "runs/one": RunInfo(PROTOCOL_VERSION, "one", {}, {}),
    }
    for path, message in messages.items():
        answer = functools.partial(Response, to_json(message), mimetype="application/json")
        app.add_url_rule(f"/v1/{path}", path, answer)
    save_private_data(tmp_path / "data.npz", private_data(1))
    with serving(app, tls=certificate) as port:
        url = f"https://127.0.0.1:{port}"
        trusting = ServerClient(url, "token", ca_file=certificate[0], patience_seconds=0)
        assert trusting.run_info().run_id == "one"
        trusting.close()
        strict = ServerClient(url, "token", patience_seconds=0)
        with pytest.raises(ServerUnavailableError, match=r"CERTIFICATE_VERIFY_FAILED.*--ca-file"):
            strict.run_info()
        strict.close()
        command = ["edge", "run", "--server", url, "--token", "token", "--data", tmp_path / "data.npz"]
        command += ["--dry-run", "--patience-seconds", "0"]
        done = gkt(*command, "--ca-file", certificate[0])
        # It has read what the run says of itself, which is nothing here.
        assert done.returncode == 2 and "manifest" in done.stderr, done.stderr
        done = gkt(*command)
        assert done.returncode == ServerUnavailableError.exit_code and "--ca-file" in done.stderr


def test_what_cannot_be_trusted(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    for path in (tmp_path / "text", tmp_path / "none", certificate[1]):
        with pytest.raises(ConfigError, match="expected certificates as a PEM file"):
            ServerClient("https://server", "token", ca_file=path)
    with pytest.raises(ConfigError, match="expected https"):
        ServerClient("http://server", "token", ca_file=certificate[0])


def test_what_is_no_certificate(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    for files in ((tmp_path / "x", certificate[1]), (certificate[0], tmp_path / "none")):
        with pytest.raises(ConfigError, match="expected PEM files"):
            server_context(*files)
