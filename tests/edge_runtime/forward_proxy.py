"""A proxy as companies have them: it forwards http, opens tunnels for https, and may want a password."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import select
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.in_thread import answering


class ForwardProxy:
    """Leads to one port of this machine, whatever server it is asked for.

    Args:
        port: Where everything goes.
        password: ``name:password`` that it wants, if any.
    """

    def __init__(self, port: int, password: str | None = None) -> None:
        self._port = port
        self._expected = password and f"Basic {base64.b64encode(password.encode()).decode()}"
        self.asked: list[str] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[str]:
        """Answer on a port of this machine, and give host and port."""
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def _forward(self) -> None:
                proxy._forward(self)

            def do_CONNECT(self) -> None:
                proxy._tunnel(self)

            do_GET = do_PUT = _forward

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        with answering(server) as port:
            yield f"127.0.0.1:{port}"

    def _lets_pass(self, handler: http.server.BaseHTTPRequestHandler) -> bool:
        if self._expected and handler.headers.get("Proxy-Authorization") != self._expected:
            handler.send_response(407, "Proxy Authentication Required")
            handler.send_header("Proxy-Authenticate", "Basic")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return False
        self.asked.append(f"{handler.command} {handler.path}")
        return True

    def _forward(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if not self._lets_pass(handler):
            return
        left_out = ("proxy-authorization", "proxy-connection", "connection", "content-length")
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in left_out}
        server = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LONGEST_SECONDS)
        server.request(handler.command, urlsplit(handler.path).path, body or None, headers)
        with contextlib.closing(server), server.getresponse() as response:
            handler.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                    handler.send_header(name, value)
            data = response.read()
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _tunnel(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if not self._lets_pass(handler):
            return
        handler.send_response(200, "Connection established")
        handler.end_headers()
        with socket.create_connection(("127.0.0.1", self._port), LONGEST_SECONDS) as server:
            ends = {server: handler.connection, handler.connection: server}
            while True:
                for ready in select.select(list(ends), [], [])[0]:
                    if not (data := ready.recv(65536)):
                        handler.close_connection = True
                        return
                    ends[ready].sendall(data)
