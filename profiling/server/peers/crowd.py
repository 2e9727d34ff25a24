"""A process full of peers that say or read nothing, or a byte a second; who is sent away comes again.

Started with a JSON object: ``port``, ``num``, ``certificate`` (empty for plain http), ``first``, which each
says at once, ``trickle``, of which it says a byte each second, and ``reads``, whether it reads what it is
told. Prints a line when all are there.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import selectors
import socket
import ssl
import sys
import time

_AGAIN_SECONDS, _BYTE_SECONDS = 0.5, 1.0
# So many come in one go: fewer than a listening socket's queue holds.
_AT_ONCE = 100
# What the kernel takes for a peer that does not read.
_LEAST_BUFFER_BYTES = 4096


class Peer:
    """One connection, made again and again.

    Attributes:
        is_there: Whether it was let in, at least once, to where it says what it says.
    """

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._sock: socket.socket | None = None
        self._shakes_hands = False
        self._place = 0
        self.is_there = False

    def go_on(self) -> float:
        """Do what is next; in how many seconds there is more."""
        try:
            if self._sock is None:
                self._connect()
            if self._shakes_hands:
                assert isinstance(self._sock, ssl.SSLSocket)
                self._sock.do_handshake()
                self._shakes_hands = False
            if self._place == 0:
                self._say(self._crowd.first)
                self._place, self.is_there = 1, True
            elif self._crowd.trickle:
                place = (self._place - 1) % len(self._crowd.trickle)
                self._say(self._crowd.trickle[place : place + 1])
                self._place += 1
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0.05 if self._shakes_hands or not self.is_there else _BYTE_SECONDS
        except OSError:
            self.leave()
            return _AGAIN_SECONDS
        return _BYTE_SECONDS

    def heard(self) -> None:
        """Read what it is told, and go if that was all."""
        if self._sock is None or self._shakes_hands:
            return
        try:
            if not self._sock.recv(65536):
                self.leave()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self.leave()

    def leave(self) -> None:
        """Close the connection; the next one is made when its time comes."""
        if self._sock is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._crowd.selector.unregister(self._sock)
            self._sock.close()
        self._sock, self._place = None, 0

    def _connect(self) -> None:
        sock = socket.socket()
        if not self._crowd.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LEAST_BUFFER_BYTES)
        sock.settimeout(60.0)
        sock.connect(("127.0.0.1", self._crowd.port))
        sock.setblocking(False)
        if self._crowd.tls is not None:
            host, tls = "127.0.0.1", self._crowd.tls
            sock = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            self._shakes_hands = True
        self._sock = sock
        self._crowd.num_connections += 1
        if self._crowd.reads:
            self._crowd.selector.register(sock, selectors.EVENT_READ, self)

    def _say(self, words: bytes) -> None:
        assert self._sock is not None
        if words:
            self._sock.sendall(words)


class Crowd:
    """All of them, in one thread.

    Args:
        port: Of the server, on this machine.
        num: How many.
        certificate: File of the authority (PEM); empty for plain http, or for peers without a handshake.
        first: What each says at once.
        trickle: What each says a byte of each second, from its beginning again in the end.
        reads: Whether they read what they are told.
    """

    def __init__(
        self, port: int, num: int, certificate: str, first: str, trickle: str, reads: bool = True
    ) -> None:
        self.reads, self.port = reads, port
        self.first, self.trickle = first.encode(), trickle.encode()
        self.tls = ssl.create_default_context(cafile=certificate) if certificate else None
        self.selector, self.num_connections = selectors.DefaultSelector(), 0
        self._peers = [Peer(self) for _ in range(num)]

    def run(self) -> None:
        """Go on until the process is ended."""
        begin, told = time.monotonic(), False
        due = [(begin + place // _AT_ONCE * 0.1, place) for place in range(len(self._peers))]
        heapq.heapify(due)
        while True:
            while due and due[0][0] <= time.monotonic():
                _, place = heapq.heappop(due)
                heapq.heappush(due, (time.monotonic() + self._peers[place].go_on(), place))
                if not told and all(peer.is_there for peer in self._peers):
                    told = True
                    sys.stdout.write("all are there\n")
                    sys.stdout.flush()
            for key, _ in self.selector.select(max(0.0, min(0.1, due[0][0] - time.monotonic()))):
                key.data.heard()


def main() -> None:
    """Be a crowd."""
    import resource  # noqa: PLC0415 - there is none on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    settings = json.loads(sys.stdin.readline())
    wanted = settings["num"] + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard > 0 else wanted, hard))
    Crowd(**settings).run()


if __name__ == "__main__":
    main()
