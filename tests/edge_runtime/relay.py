"""A relay in front of a server that answers some requests itself, as proxies, CDNs and captive portals do."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.in_thread import answering

HTML = b"<html><body>one moment please</body></html>"


@dataclass(frozen=True)
class Answer:
    """What the server said, or what the relay says in its place; the headers hold no length."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: int | None = None
    is_reset: bool = False


# Makes what the device gets from what the server said.
Kind = Callable[[Answer], Answer]


def page(status: int, *headers: tuple[str, str]) -> Kind:
    return lambda real: Answer(status, [("Content-Type", "text/html"), *headers], HTML)


def _with(name: str, value: str, body: bytes) -> Kind:
    def changed(real: Answer) -> Answer:
        kept = [each for each in real.headers if each[0].lower() != name.lower()]
        return Answer(real.status, [*kept, (name, value)], body)

    return changed


KINDS: dict[str, Kind] = {
    **{
        str(status): page(status)
        for status in (400, 401, 403, 404, 405, 408, 411, 429, 500, 502, 503, 504, 522, 524, 530)
    },
    "407": page(407, ("Proxy-Authenticate", "Basic")),
    "portal": page(200),
    "portal302": page(302, ("Location", "http://login.hotel.example/")),
    "no content": lambda real: Answer(204, [], b""),
    "json of another": lambda real: Answer(
        200, [("Content-Type", "application/json")], b'{"login": "please"}'
    ),
    "json error of another": lambda real: Answer(
        403, [("Content-Type", "application/json")], b'{"detail": "no", "code": 7}'
    ),
    "cut": lambda real: Answer(real.status, real.headers, real.body[: len(real.body) // 2], len(real.body)),
    "shortened": lambda real: Answer(real.status, real.headers, real.body[: len(real.body) // 2]),
    "no gzip": _with("Content-Encoding", "gzip", b"no gzip at all"),
    "reset": lambda real: Answer(0, [], b"", is_reset=True),
}


class Relay:
    """Passes requests on, and answers those that the test wants answered by itself.

    Args:
        port: Of the server.
        judge: Says for a request (``PUT /v1/...``) the kind of answer; None to let it pass. Called by several
            threads.
    """

    def __init__(self, port: int, judge: Callable[[str], str | None]) -> None:
        self._port, self._judge = port, judge
        self.answered: list[tuple[str, str]] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[str]:
        """Answer on a port of this machine, and give its URL."""
        relay = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def _pass_on(self) -> None:
                relay._handle(self)

            do_GET = do_PUT = do_POST = _pass_on

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        with answering(server) as port:
            yield f"http://127.0.0.1:{port}"

    def _handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        request = f"{handler.command} {handler.path}"
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        kind = self._judge(request)
        answer = self._ask(handler, body)
        if kind is not None:
            # The server has seen it, and the device does not hear of that: the worse of the two cases.
            self.answered.append((request, kind))
            answer = KINDS[kind](answer)
        if answer.is_reset:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        handler.send_response_only(answer.status)
        for name, value in answer.headers:
            handler.send_header(name, value)
        length = len(answer.body) if answer.length is None else answer.length
        if answer.status != 204:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(answer.body)
        handler.close_connection = handler.close_connection or length != len(answer.body)

    def _ask(self, handler: http.server.BaseHTTPRequestHandler, body: bytes) -> Answer:
        left_out = ("host", "connection", "content-length", "transfer-encoding", "date", "server")
        server = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LONGEST_SECONDS)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in left_out}
        server.request(handler.command, handler.path, body if handler.command != "GET" else None, headers)
        with contextlib.closing(server), server.getresponse() as response:
            kept = [(name, value) for name, value in response.getheaders() if name.lower() not in left_out]
            return Answer(response.status, kept, response.read())
