"""A relay between devices and server that counts every byte of the connections, heads and bodies apart."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import h11

from gkt_core.wire import paths
from gkt_core.wire.paths import matcher

_CHUNK = 1 << 16
WIRE_NAME = "wire.json"
# What a request is for, by its path.
_KINDS = {
    "shards": matcher(paths.RUN + paths.SHARD),
    "missing_shards": matcher(paths.RUN + paths.SHARDS),
    "reports": matcher(paths.RUN + paths.REPORT),
    "soft_labels": matcher(paths.RUN + paths.SOFT_LABELS),
    "extractor": matcher(paths.RUN + paths.EXTRACTOR),
    "bundle": matcher(paths.RUN + paths.ARTIFACT),
    "model": matcher(paths.RUN + paths.MODEL),
    "task": matcher(paths.RUN + paths.TASK),
    "credential": matcher(paths.RUN + paths.CREDENTIAL),
    "join": matcher(paths.RUN + paths.CLIENT),
    "run_info": re.compile(f"{matcher(paths.RUNS).pattern}|{matcher(paths.RUN).pattern}"),
}
UNPARSED = "unparsed"
_Take = Callable[[bytes, "dict[str, KindCount]"], None]


@dataclass(slots=True)
class KindCount:
    """Bytes of all exchanges of one kind.

    Attributes:
        num_requests: Requests that were answered.
        request_head_bytes: Request lines and header fields.
        request_body_bytes: What came behind them.
        response_head_bytes: Status lines and header fields.
        response_body_bytes: What came behind them.
    """

    num_requests: int = 0
    request_head_bytes: int = 0
    request_body_bytes: int = 0
    response_head_bytes: int = 0
    response_body_bytes: int = 0


def kind_of_request(target: str) -> str:
    """What a request is for: ``shards``, ``task`` and so on, or ``other``."""
    path = target.partition("?")[0]
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(path)), "other")


class WireMeter:
    """Listens on a free port of loopback and passes everything on to one server, counting.

    Args:
        url: The server's, such as ``http://127.0.0.1:8080``.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (str(parts.hostname), int(parts.port or 80))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._lock = threading.Lock()
        self._kinds: dict[str, KindCount] = {}
        self._totals = {"upload_bytes": 0, "download_bytes": 0, "num_connections": 0}
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept, name="wire-meter", daemon=True)

    @property
    def url(self) -> str:
        """Where devices connect instead."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> WireMeter:
        """Begin to listen."""
        self._accepting.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Close every connection."""
        # Closing alone does not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *self._threads):
            thread.join(timeout=5)
        for each in sockets:
            each.close()

    def counts(self) -> dict[str, Any]:
        """What was counted so far: ``upload_bytes``, ``download_bytes``, ``num_connections``, ``kinds``.

        ``upload_bytes`` and ``download_bytes`` are all bytes of the connections; the heads and bodies of
        ``kinds`` add up to them once no exchange is under way.
        """
        with self._lock:
            kinds = {name: asdict(count) for name, count in sorted(self._kinds.items())}
            return {**self._totals, "kinds": kinds}

    def _accept(self) -> None:
        while True:
            try:
                device, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server, timeout=10)
            except OSError:
                # As a server that does not listen looks to a device.
                device.close()
                continue
            server.settimeout(None)
            exchange = _Exchange()
            # Whoever ends last closes both: a run of days must not gather closed connections.
            open_pumps = threading.Semaphore(1)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            with self._lock:
                self._totals["num_connections"] += 1
                self._sockets |= {device, server}
            for source, sink, take, total in (
                (device, server, exchange.from_device, "upload_bytes"),
                (server, device, exchange.from_server, "download_bytes"),
            ):
                # Answers of a few bytes must not wait for more: the relay may not slow a device down.
                sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(
                    target=self._pump, args=(source, sink, take, total, open_pumps), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        take: _Take,
        total: str,
        open_pumps: threading.Semaphore,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                # Counted before it is passed on: whoever has an answer finds its request counted.
                with self._lock:
                    self._totals[total] += len(data)
                    take(data, self._kinds)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        if open_pumps.acquire(blocking=False):
            return
        with self._lock:
            self._sockets -= {source, sink}
        source.close()
        sink.close()


class _Exchange:
    """Follows one connection: which bytes belong to which kind of request, as head or as body.

    h11 parses both directions, each in the role of the side that receives them. What it cannot parse is
    counted as :data:`UNPARSED` and passed on all the same.
    """

    def __init__(self) -> None:
        self._requests = h11.Connection(h11.SERVER)
        self._answers = h11.Connection(h11.CLIENT)
        self._kind = UNPARSED
        self._broken = False

    def from_device(self, data: bytes, kinds: dict[str, KindCount]) -> None:
        """Bytes of a request."""
        body = self._follow(self._requests, self._answers, data)
        count = kinds.setdefault(self._kind, KindCount())
        count.request_body_bytes += body
        count.request_head_bytes += len(data) - body

    def from_server(self, data: bytes, kinds: dict[str, KindCount]) -> None:
        """Bytes of an answer."""
        # Before it is followed: the end of the answer also ends what is known about the request.
        count = kinds.setdefault(self._kind, KindCount())
        body = self._follow(self._answers, self._requests, data)
        count.response_body_bytes += body
        count.response_head_bytes += len(data) - body
        if not self._broken and self._answers.our_state is h11.IDLE:
            count.num_requests += 1

    def _follow(self, receiver: h11.Connection, other: h11.Connection, data: bytes) -> int:
        """Parse what arrived, tell the other direction, and return how much of it was body."""
        if self._broken:
            return 0
        body = 0
        try:
            receiver.receive_data(data)
            while (event := receiver.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    self._kind = kind_of_request(event.target.decode("ascii", errors="replace"))
                elif isinstance(event, h11.Data):
                    body += len(event.data)
                elif isinstance(event, h11.ConnectionClosed):
                    break
                other.send(event)  # type: ignore[arg-type]
            if receiver.our_state is h11.DONE and receiver.their_state is h11.DONE:
                for connection in (self._requests, self._answers):
                    connection.start_next_cycle()
        except (h11.RemoteProtocolError, h11.LocalProtocolError):
            self._broken, self._kind = True, UNPARSED
        return body
