"""What a request handler asks of the connection that it answers, behind our web server; elsewhere nothing.

Above all, to keep a question of a device that waits: without a thread, until there is something to do. One
whose time is over is answered that there is nothing. Where the device then asks the very same on the same
connection, and nothing has changed since, the question is kept once more as it is: neither a thread nor the
application has to do with it. That is what most questions of a long wait are.
"""

from __future__ import annotations

import contextlib
import random
import re
import selectors
import ssl
import time
from concurrent.futures import Future
from email.utils import formatdate
from functools import partial
from typing import Any

from server_app.turns import Turn
from server_app.web.peers.answering import SendsLater

# Beyond it, what a peer sends behind a request is no request.
MOST_HEAD_BYTES, PIECE_BYTES = 64 * 1024, 16 * 1024
_LEAST_KEPT_SHARE = 0.9
_END = b"\r\n\r\n"
_DATE = re.compile(rb"(?<=\r\nDate: )[^\r]*")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Asked(SendsLater):
    """What a request handler asks of its connection; see :func:`send_continue` and :func:`close_after`."""

    message: Any = None
    expects_continue = False
    turn: Turn | None = None

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send, but for an answer that is kept until its device's turn has come."""
        if self.turn is None:
            super().sendall(data, flags)
        else:
            self.turn.answer += data


def send_continue(connection: Any) -> None:
    """Ask a peer for its body that waits to be asked (``Expect: 100-continue``)."""
    if getattr(connection, "expects_continue", False):
        connection.expects_continue = False
        connection.sendall(_CONTINUE)


def keep(connection: Any, turn: Turn) -> None:
    """Let the answer of the current request wait for a device's turn, if the connection can."""
    if isinstance(connection, Asked):
        connection.turn = turn


def close_after(connection: Any) -> None:
    """Let the answer of the current request be the connection's last; its body is not waited for."""
    if (message := getattr(connection, "message", None)) is not None:
        message.force_close()


class KeepsQuestions:
    """The part of :class:`server_app.web.connections.Worker` that keeps questions; all of it in its loop."""

    # Of the worker.
    poller: Any
    method_queue: Any
    enqueue_req: Any
    finish_request: Any
    _drop: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # By device, whose turn each waits for: a device has one.
        self._kept: dict[str, Any] = {}

    def _keep(self, peer: Any, turn: Turn) -> None:
        """Keep a request, without a thread, until its device's turn has come or its time is over."""
        # More than once where the other one has sent the same question once more, which is kept at once.
        while (other := self._kept.get(turn.client_id)) is not None:
            self._let_go(other)
        now = time.monotonic()
        # Devices that began to wait together must not all ask again together.
        seconds = turn.seconds * random.uniform(_LEAST_KEPT_SHARE, 1.0)
        peer.kept_until = peer.kept_until or now + seconds
        self._kept[turn.client_id] = peer
        peer.sock.setblocking(False)
        self.poller.register(peer.sock, selectors.EVENT_READ, partial(self._hear, peer))
        turn.watch.add(turn, lambda: self.method_queue.defer(self._ask_again, peer, turn))

    def _keep_again(self, peer: Any) -> bool:
        """Keep a request that was kept before, if it is the same and nothing has changed; whether it is."""
        last: tuple[bytes, Turn] | None = peer.last_kept
        peer.last_kept = None
        if last is None or last[0] != peer.head or not last[1].is_still():
            return False
        peer.sock.turn = last[1]
        self._keep(peer, last[1])
        return True

    def _hear(self, peer: Any, _: Any) -> None:
        """Notice that the peer of a kept request is gone; what it asks next waits."""
        try:
            data = peer.sock.recv(PIECE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            data = b""
        later = peer.parser.unreader.take_buffered() + data
        peer.parser.unreader.unread(later)
        if not data or len(later) > MOST_HEAD_BYTES:
            self._drop(peer)

    def _release(self, peer: Any) -> Turn | None:
        turn: Turn | None = peer.sock.turn
        if turn is None or turn.client_id not in self._kept or self._kept[turn.client_id] is not peer:
            return None
        del self._kept[turn.client_id]
        turn.watch.remove(turn)
        self.poller.unregister(peer.sock)
        return turn

    def _ask_again(self, peer: Any, turn: Turn) -> None:
        """Handle a kept request once more, now that there is something to do."""
        if peer.sock.turn is turn and self._release(peer) is not None:
            peer.sock.turn = None
            head, end, _ = bytes(peer.head).partition(_END)
            peer.parser.unreader.unread(head + end)
            self.enqueue_req(peer)

    def _let_go(self, peer: Any) -> None:
        """Answer a kept request that there is nothing to do for now."""
        if self._release(peer) is not None:
            done: Future[bool] = Future()
            done.set_result(True)
            # As if it had been answered just now.
            turn, peer.sock.turn = peer.sock.turn, None
            self._answer(peer, turn)
            if peer.head.endswith(_END) and peer.head.count(_END) == 1:
                peer.last_kept = bytes(peer.head), turn
            self.finish_request(peer, done)

    def _let_go_of_all(self, until: float) -> None:
        """Answer the kept requests whose time is over by then."""
        for peer in [each for each in self._kept.values() if each.kept_until <= until]:
            self._let_go(peer)

    def _answer(self, peer: Any, turn: Turn) -> None:
        peer.sock.turn, peer.kept_until = None, 0.0
        with contextlib.suppress(OSError):
            peer.sock.sendall(_DATE.sub(formatdate(usegmt=True).encode(), bytes(turn.answer), count=1))
