"""Connections of the web server: none has a thread before the whole head of its request is there.

gunicorn's threaded worker gives each new connection a thread, which then waits for the handshake and the
head. As many silent peers as there are threads would keep everybody out. Here its loop reads both without
waiting, and discards what a refused peer still sends: a peer that says nothing, or a byte now and then,
costs a descriptor until its deadline, and the one that has waited longest gives way when there are too many.
So does a device that waits for its turn (:mod:`server_app.web.asking`), a message whose body does not come,
and a peer that does not read its answer (:mod:`server_app.web.peers.answering`).
"""

from __future__ import annotations

import contextlib
import errno
import math
import re
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Collection
from concurrent.futures import Future
from functools import partial
from typing import Any

from gunicorn import http, util
from gunicorn.http.errors import UnsupportedTransferCoding
from gunicorn.workers.gthread import TConn, ThreadWorker

from server_app.turns import Turn
from server_app.web.asking import MOST_HEAD_BYTES, PIECE_BYTES, Asked, KeepsQuestions
from server_app.web.certificates import Certificates
from server_app.web.peers.answering import SendsAnswers, limit_ahead
from server_app.web.peers.dispatching import Dispatches
from server_app.web.peers.queueing import NOT_COUNTED

# What a handshake and the head of a request may take together.
HEAD_SECONDS = 10.0
# A body of so many bytes that is no shard is a message: it has come as a whole before it has a thread,
# in so many seconds. What is longer is an upload, which its route admits or not.
MESSAGE_BYTES, MESSAGE_SECONDS = 32 * 1024, 33.0
# What a refused peer still sends is read, so that it comes to read why; so much, and for so long.
_LINGER_SECONDS, _MOST_LINGER_BYTES = 30.0, 256 << 20
# Descriptors that are made free at once when there is none.
_SPARE = 32
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_SHARD = re.compile(rb"PUT [^\s]*/shards/")
_EXPECTS = re.compile(rb"\r\nexpect:", re.IGNORECASE)
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class _PlainSocket(Asked, socket.socket):
    """A connection without TLS: the kernel ends a silence, by the listener's options."""


class _TLSSocket(Asked, ssl.SSLSocket):
    """A connection with TLS: Python repeats a read that the kernel ended, so the limit is Python's own."""

    silence_seconds = 30.0

    def setblocking(self, flag: bool) -> None:
        """Wait no longer than the limit where gunicorn would wait for ever."""
        self.settimeout(self.silence_seconds if flag else 0.0)


class Peer(TConn):  # type: ignore[misc]
    """A connection, with what its peer has sent of the next head."""

    def __init__(self, worker: Worker, sock: Any, address: Any, listener: socket.socket) -> None:
        super().__init__(worker.cfg, sock, address, listener.getsockname())
        self.parser = http.get_parser(worker.cfg, sock, address)
        # gunicorn has nothing left to prepare in a thread.
        self.initialized = self.data_ready = True
        self.shakes_hands = isinstance(sock, ssl.SSLSocket)
        self.head, self.deadline, self.num_discarded = bytearray(), 0.0, 0
        # How long head and body are, once the head is there; what a request is counted as, from then on, and
        # whether the last one was of somebody who is known.
        self.wanted_bytes, self.counted, self.is_known = 0, NOT_COUNTED, False
        self.num_delivered = 0
        # Until when its request is kept, from the first time on; 0 for one that is not.
        self.kept_until = 0.0
        # Its last request that was kept until its time was over, if nothing has been asked since.
        self.last_kept: tuple[bytes, Turn] | None = None

    def close(self, graceful: bool = False) -> None:
        """Close; an answer that is not sent to its end is waited for by nobody, nor by the kernel."""
        if self.sock.has_unsent:
            self.sock.forget_unsent()
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
        super().close(graceful)


def _want_length(sock: socket.socket) -> None:
    util.write_error(sock, 411, "Length Required", "send the body with a Content-Length")


class Worker(Dispatches, KeepsQuestions, SendsAnswers, ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, its own master; ``gkt serve`` handles signals and knows its parent."""

    certificates: Certificates | None = None
    head_seconds, message_seconds, silence_seconds = HEAD_SECONDS, MESSAGE_SECONDS, 30.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # In the order of their deadlines, as each is put at the end with the same time to go.
        self._waiting: dict[Peer, None] = {}
        self._with_body: dict[Peer, None] = {}
        self._lingering: dict[Peer, None] = {}
        self._rests_until = 0.0

    def init_signals(self) -> None:
        """Leave signals to the process."""

    def is_parent_alive(self) -> bool:
        """Live as long as the process does."""
        return True

    def run(self) -> None:
        """Serve until told to stop."""
        if self.alive:
            super().run()
        self._end_pools()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Handle what happened since; of a connection that was closed a moment ago, nothing happened."""
        for key, _ in self.poller.select(timeout):
            try:
                watched = self.poller.get_key(key.fileobj)
            except (KeyError, ValueError):
                continue
            # What came before it in this list may have closed it, or be handling its request by now.
            if watched.data is key.data:
                key.data(key.fileobj)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept, unless there was no descriptor a moment ago."""
        super().set_accept_enabled(enabled and time.monotonic() >= self._rests_until)

    def accept(self, listener: socket.socket) -> None:
        """Take a connection, and wait for the head of its first request."""
        try:
            accepted, address = listener.accept()
        except OSError as error:
            # Several: a request that is being handled opens files, too.
            if error.errno in _NO_DESCRIPTOR and not any([self._make_room() for _ in range(_SPARE)]):
                # The listener stays readable: asked again and again, it would take a whole core.
                self._rests_until = time.monotonic() + 0.5
                self.set_accept_enabled(False)
            return
        sock: socket.socket = _PlainSocket(fileno=accepted.detach())
        try:
            # An answer is two writes, of which the second would wait for the peer's delayed ACK: 44 ms.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            limit_ahead(sock)
            if self.certificates is not None:
                sock = self._with_tls(sock, self.certificates.context())
            peer = Peer(self, sock, address, listener)
        except OSError:
            # It is gone already.
            sock.close()
            return
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self._make_room()
        self._await_head(peer)

    def _with_tls(self, sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        context.sslsocket_class = _TLSSocket
        wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        assert isinstance(wrapped, _TLSSocket)
        wrapped.silence_seconds = self.silence_seconds
        return wrapped

    def _make_room(self) -> bool:
        """Close the connection that has waited longest for its peer; whether there is one."""
        if self.keepalived_conns:
            peer = self.keepalived_conns.popleft()
        else:
            # Of those that are many: a few honest ones are among them only if there is no crowd.
            crowds: list[Collection[Peer]] = [self._waiting, self._with_body, self._lingering, self._sending]
            peer = next(iter(max(crowds, key=len) or self._kept.values()), None)
        if peer is None:
            return False
        self._drop(peer)
        return True

    def _await_head(self, peer: Peer, begun: bytes = b"") -> None:
        peer.head[:] = begun
        peer.wanted_bytes = 0
        peer.deadline = time.monotonic() + self.head_seconds
        peer.sock.setblocking(False)
        self._waiting[peer] = None
        self.poller.register(peer.sock, selectors.EVENT_READ, partial(self._read_head, peer))

    def _read_head(self, peer: Peer, _: Any) -> None:
        """Read what has come, without waiting; a head that is whole becomes a request."""
        try:
            if peer.shakes_hands:
                peer.sock.do_handshake()
                peer.shakes_hands = False
            while not self._has_come(peer):
                data = peer.sock.recv(PIECE_BYTES)
                if not data or len(peer.head) + len(data) > MOST_HEAD_BYTES:
                    self._drop(peer)
                    return
                peer.head += data
        except (BlockingIOError, ssl.SSLWantReadError):
            self._watch(peer, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(peer, selectors.EVENT_WRITE)
        except OSError:
            self._drop(peer)
        else:
            self.poller.unregister(peer.sock)
            self._waiting.pop(peer, None)
            self._with_body.pop(peer, None)
            if self.alive and self._keep_again(peer):
                return
            peer.parser.unreader.unread(bytes(peer.head))
            self.enqueue_req(peer)

    def _has_come(self, peer: Peer) -> bool:
        """Whether a request can be handled: its head is there, and its body if that is a message's."""
        if not peer.wanted_bytes:
            end = peer.head.find(_END) + len(_END)
            if end < len(_END):
                return False
            head = bytes(peer.head[:end])
            length = _LENGTH.search(head)
            is_asked_for = _EXPECTS.search(head) or _SHARD.match(head)
            num_bytes = 0 if length is None or is_asked_for else int(length[1])
            # Together they are no more than a head alone may be.
            is_message = num_bytes <= MESSAGE_BYTES and end + num_bytes <= MOST_HEAD_BYTES - PIECE_BYTES
            peer.wanted_bytes = end + num_bytes if is_message else end
            if len(peer.head) < peer.wanted_bytes:
                del self._waiting[peer]
                peer.deadline = time.monotonic() + self.message_seconds
                self._with_body[peer] = None
        return len(peer.head) >= peer.wanted_bytes

    def _watch(self, peer: Peer, events: int) -> None:
        key = self.poller.get_key(peer.sock)
        if key.events != events:
            self.poller.modify(peer.sock, events, key.data)

    def on_client_socket_readable(self, conn: Peer, client: Any) -> None:
        """Begin the next request of a connection that was kept."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_head(conn)
        self._read_head(conn, client)

    def handle_request(self, req: Any, conn: Peer) -> bool:
        """Let the application decide whether the body is asked for, and whether the connection is kept."""
        if any(name == "TRANSFER-ENCODING" for name, _ in req.headers):
            _want_length(conn.sock)
            return False
        conn.sock.message, conn.sock.expects_continue = req, req._expected_100_continue
        req._expected_100_continue = False
        try:
            kept: bool = super().handle_request(req, conn)
        finally:
            conn.sock.message = None
        return kept

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Refuse what cannot be read at all; a coding that nobody knows is the peer's fault, not ours."""
        if not isinstance(exc, UnsupportedTransferCoding):
            super().handle_error(req, client, addr, exc)
            return
        with contextlib.suppress(OSError):
            _want_length(client)

    def finish_request(self, conn: Peer, fs: Any) -> None:
        """Keep the request or the connection, or read what its peer still sends before it is closed."""
        try:
            kept = bool(not fs.cancelled() and fs.result())
            turn: Turn | None = conn.sock.turn
            if turn is not None and kept and self.alive:
                self._keep(conn, turn)
                return
            conn.kept_until = 0.0
            if turn is not None:
                self._answer(conn, turn)
        except Exception:
            self._drop(conn)
        else:
            self._go_on(conn, kept=kept)

    def _go_on(self, peer: Peer, *, kept: bool) -> None:
        """Send what is left of an answer, and then go on."""
        try:
            if peer.sock.has_unsent:
                self._send_rest(peer, kept=kept)
            else:
                self._answered(peer, kept)
        except Exception:
            self._drop(peer)

    def _answered(self, peer: Peer, kept: bool) -> None:
        """Wait for the next request of a connection, or end it."""
        if not kept:
            self._linger(peer)
            return
        begun = peer.parser.unreader.take_buffered()
        if begun or (isinstance(peer.sock, ssl.SSLSocket) and peer.sock.pending()):
            if not peer.is_known:
                # Many requests in one go would cost their sender nothing.
                self._linger(peer)
                return
            # The next request is here already, and no event would tell of it.
            self._await_head(peer, begun)
            self._read_head(peer, peer.sock)
            return
        done: Future[bool] = Future()
        done.set_result(True)
        super().finish_request(peer, done)

    def _linger(self, peer: Peer) -> None:
        peer.deadline = time.monotonic() + _LINGER_SECONDS
        try:
            peer.sock.setblocking(False)
            peer.sock.shutdown(socket.SHUT_WR)
            self.poller.register(peer.sock, selectors.EVENT_READ, partial(self._discard, peer))
        except (OSError, ValueError):
            self.nr_conns -= 1
            peer.close()
            return
        self._lingering[peer] = None

    def _discard(self, peer: Peer, _: Any) -> None:
        try:
            data = peer.sock.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        peer.num_discarded += len(data)
        if not data or peer.num_discarded > _MOST_LINGER_BYTES:
            self._drop(peer)

    def murder_pending(self) -> None:
        """Close what has waited for too long."""
        now = time.monotonic()
        for peers in (self._waiting, self._with_body, self._lingering):
            while peers and (peer := next(iter(peers))).deadline <= now:
                self._drop(peer)
        self._drop_slow_readers(now)
        self._let_go_of_all(now)

    def _cap_keepalive(self, deadline: float) -> None:
        """Stop: nobody is waited for who is not being answered."""
        self._let_go_of_all(math.inf)
        super()._cap_keepalive(deadline)
        for peer in [*self._waiting, *self._with_body, *self._lingering]:
            self._drop(peer)

    def _forget(self, peer: Peer) -> None:
        with contextlib.suppress(OSError, KeyError, ValueError):
            self._release(peer)
        self._waiting.pop(peer, None)
        self._with_body.pop(peer, None)
        self._lingering.pop(peer, None)
        self._stop_sending(peer)
        with contextlib.suppress(OSError, KeyError, ValueError):
            self.poller.unregister(peer.sock)

    def _drop(self, peer: Peer) -> None:
        self._forget(peer)
        self.nr_conns -= 1
        peer.close()
