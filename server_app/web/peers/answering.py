"""Send answers: no thread waits for a peer to read, and none holds more of an answer than its next piece.

A thread sends what the kernel takes at once. What is left, the web server's loop sends whenever there is room
again, and it asks the answer for its next piece only then: of a file, that is read no sooner. A peer that
reads nothing, or a byte now and then, costs a descriptor until it has proved too slow, as one whose head does
not come (:mod:`server_app.web.connections`).
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from gkt_core.wire.protocol import ErrorBody, to_json

# What peers must bring or take on average: a byte now and then would hold a connection for ever.
LEAST_BYTES_PER_SECOND = 1000
# What is sent to one peer before the next one has its turn.
_TURN_BYTES = 256 * 1024
# Of all answers together that are in memory as a whole, beyond what the kernel has taken.
MOST_UNSENT_BYTES = 64 << 20
# What the kernel takes ahead of a peer that reads slowly.
_AHEAD_BYTES = 128 * 1024
# Of a file that is in memory for the whole process.
_SHARED_PIECE_BYTES = 16 * 1024
_log = logging.getLogger("gkt.server")


def shared_pieces(data: bytes) -> Iterator[bytes]:
    """A file that all answers share, a piece at a time: an answer holds no more of it than that."""
    for begin in range(0, len(data), _SHARED_PIECE_BYTES):
        yield data[begin : begin + _SHARED_PIECE_BYTES]


class SendsLater:
    """A connection that takes whatever is to be sent, and waits for no peer; stands before a socket's class.

    Attributes:
        num_sent: Bytes that the kernel has taken.
        awaits: What the socket is to be ready for before more can be sent.
    """

    num_sent, awaits = 0, selectors.EVENT_WRITE
    _unsent: deque[memoryview] | None = None
    _body: _Body | None = None

    @property
    def has_unsent(self) -> bool:
        """Whether something is left to be sent."""
        return bool(self._unsent) or self._body is not None

    @property
    def unsent_bytes(self) -> int:
        """What is left and in memory."""
        return sum(map(len, self._unsent or ()))

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send what the kernel takes now, and keep the rest for :meth:`send_on`."""
        view = memoryview(data if isinstance(data, bytes) else bytes(data))
        if not self.has_unsent:
            view = view[self._send_now(view) :]
        if view:
            self._unsent = deque() if self._unsent is None else self._unsent
            self._unsent.append(view)

    def send_body(self, body: _Body) -> None:
        """Send the rest of an answer behind what is left."""
        self._body = body

    def send_on(self) -> bool:
        """Send more, as far as the kernel takes it and others wait not too long; whether that was all.

        Raises:
            OSError: The peer is gone, or a file cannot be read.
        """
        until = self.num_sent + _TURN_BYTES
        while self.num_sent < until:
            if not self._unsent:
                piece = None if self._body is None else self._body.next_piece()
                if piece is None:
                    self.forget_unsent()
                    return True
                self._unsent = deque([memoryview(piece)])
            num_sent = self._send_now(self._unsent[0])
            if num_sent < len(self._unsent[0]):
                self._unsent[0] = self._unsent[0][num_sent:]
                return False
            self._unsent.popleft()
        return False

    def forget_unsent(self) -> None:
        """Let go of what is left."""
        body, self._body, self._unsent = self._body, None, None
        if body is not None:
            body.let_go()

    def num_delivered(self) -> int:
        """Bytes that the peer's side has taken: those that the kernel still holds are none of them."""
        return self.num_sent - _num_queued(self)

    def _send_now(self, view: memoryview) -> int:
        num_sent, sock = 0, cast(Any, super())
        is_tls = isinstance(self, ssl.SSLSocket)
        seconds = self.gettimeout()  # type: ignore[attr-defined] # the socket that this stands before
        # TLS knows no flag for one call, and would be waited for.
        if is_tls and seconds != 0.0:
            self.settimeout(0.0)  # type: ignore[attr-defined] # as above
        try:
            while num_sent < len(view):
                flags = 0 if is_tls else socket.MSG_DONTWAIT
                num_sent += sock.send(view[num_sent:], flags)
        except (BlockingIOError, ssl.SSLWantWriteError):
            self.awaits = selectors.EVENT_WRITE
        except ssl.SSLWantReadError:
            self.awaits = selectors.EVENT_READ
        finally:
            if is_tls and seconds != 0.0:
                self.settimeout(seconds)  # type: ignore[attr-defined] # as above
        self.num_sent += num_sent
        return num_sent


class _Body:
    """An answer's pieces, handed to the loop once the peer takes no more at once."""

    def __init__(self, connection: SendsLater, pieces: Any, length: int | None) -> None:
        self._connection, self._pieces, self._iterator = connection, pieces, iter(pieces)
        self._left, self._is_handed_over = length, False

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        # One of unknown length is framed by gunicorn: that one is in memory as a whole.
        if self._left is not None and self._connection.has_unsent:
            self._is_handed_over = True
            self._connection.send_body(self)
            raise StopIteration
        piece: bytes = next(self._iterator)
        if self._left is not None:
            self._left -= len(piece)
        return piece

    def next_piece(self) -> bytes | None:
        """What is to be sent next; None behind the last.

        Raises:
            OSError: There is less than was announced, or it cannot be read.
        """
        for piece in self._iterator:
            if piece:
                self._left = (self._left or 0) - len(piece)
                return bytes(piece)
        if self._left:
            raise OSError(f"the answer lacks {self._left} bytes of those that were announced")
        return None

    def close(self) -> None:
        """Gunicorn is done with it."""
        if not self._is_handed_over:
            self.let_go()

    def let_go(self) -> None:
        """Close what is being sent."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()


def answering_later(app: Any) -> Callable[[dict[str, Any], Any], Any]:
    """Let the answers of a WSGI application be sent by the loop where their connection can."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        length: list[int] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            length[:] = [int(value) for name, value in headers if name.lower() == "content-length"]
            return start_response(status, headers, exc_info)

        body = app(environ, start)
        connection = environ.get("gunicorn.socket")
        if not isinstance(connection, SendsLater):
            return body
        return _Body(connection, body, length[0] if length else None)

    return answer


def busy_answer(what: str) -> bytes:
    """The whole answer for who is to come again soon."""
    body = to_json(ErrorBody("ServiceUnavailable", f"{what}: ask again in two seconds"))
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 2\r\n"
        "Cache-Control: no-store\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def limit_ahead(sock: socket.socket) -> None:
    """Let the kernel take little ahead of a peer that reads slowly, where it can be told to."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None)
    if option is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, _AHEAD_BYTES)


def _num_queued(sock: Any) -> int:
    """Bytes in the kernel that the peer's side has not confirmed; 0 where that cannot be known."""
    if sys.platform != "linux":
        return 0
    import fcntl  # noqa: PLC0415 - there is none on Windows
    import termios  # noqa: PLC0415 - nor this

    try:
        (num,) = struct.unpack("@i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return 0
    return int(num)


class SendsAnswers:
    """The part of :class:`server_app.web.connections.Worker` that sends answers; all of it in its loop."""

    # Of the worker.
    poller: Any
    silence_seconds: float
    _drop: Any
    _go_on: Any
    _watch: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # In the order of their deadlines; whether each is kept, and what of its answer is in memory.
        self._sending: dict[Any, tuple[bool, int]] = {}
        self._unsent_bytes = 0

    def _send_rest(self, peer: Any, *, kept: bool) -> None:
        """Send what is left of an answer, and then go on with its connection, or end it."""
        peer.sock.setblocking(False)
        self.poller.register(peer.sock, peer.sock.awaits, partial(self._send_more, peer))
        self._expect(peer, kept, peer.sock.unsent_bytes)
        while self._unsent_bytes > MOST_UNSENT_BYTES:
            # The largest of them, and of those the one that has been sent for longest.
            self._drop(max(self._sending, key=lambda each: self._sending[each][1]))

    def _expect(self, peer: Any, kept: bool, unsent_bytes: int) -> None:
        peer.deadline = time.monotonic() + self.silence_seconds
        peer.num_delivered = peer.sock.num_delivered()
        self._sending[peer] = kept, unsent_bytes
        self._unsent_bytes += unsent_bytes

    def _send_more(self, peer: Any, _: Any) -> None:
        try:
            is_all = peer.sock.send_on()
        except OSError:
            self._drop(peer)
        except Exception:
            # Of one answer: no other peer has to do with it.
            _log.exception("an answer could not be sent to its end")
            self._drop(peer)
        else:
            if is_all:
                kept, _num_bytes = self._sending[peer]
                self._stop_sending(peer)
                self.poller.unregister(peer.sock)
                self._go_on(peer, kept=kept)
            else:
                self._watch(peer, peer.sock.awaits)

    def _stop_sending(self, peer: Any) -> None:
        if peer in self._sending:
            self._unsent_bytes -= self._sending.pop(peer)[1]

    def _drop_slow_readers(self, now: float) -> None:
        """Close connections whose peers took less than they must in the time that a silence may last."""
        while self._sending and (peer := next(iter(self._sending))).deadline <= now:
            took = peer.sock.num_delivered() - peer.num_delivered
            if took < self.silence_seconds * LEAST_BYTES_PER_SECOND:
                self._drop(peer)
                continue
            kept, _num_bytes = self._sending[peer]
            self._stop_sending(peer)
            self._expect(peer, kept, peer.sock.unsent_bytes)
