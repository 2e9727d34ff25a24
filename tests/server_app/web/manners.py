"""How requests travel over a real socket: whole, in pieces, several at once, chunked, cut off, odd heads.

After each the sending half of the connection is closed, so that nobody waits for what never comes.
"""

from __future__ import annotations

import http.client
import io
import random
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.conftest import LONGEST_SECONDS
from tests.server_app.web.fuzzing import Sent


@dataclass(frozen=True)
class Answer:
    """What a server said to one request."""

    status: int
    body: bytes
    # Ours; gunicorn itself answers what it cannot read at all.
    is_json: bool


@dataclass(frozen=True)
class Manner:
    """Bytes that go over one connection, and how.

    Attributes:
        name: Of the manner.
        pieces: Each is sent by itself.
        is_whole: Whether each request was sent to its end.
        resets: Whether the connection is reset in the end, and no answer read.
    """

    name: str
    pieces: tuple[bytes, ...]
    is_whole: bool = True
    resets: bool = False


def exchange(port: int, tls: ssl.SSLContext | None, manner: Manner) -> list[Answer]:
    """Send it over a new connection, and read all that is answered."""
    said = bytearray()
    raw = socket.create_connection(("127.0.0.1", port), LONGEST_SECONDS)
    peer = raw if tls is None else tls.wrap_socket(raw, server_hostname="127.0.0.1")
    with peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in manner.pieces:
                peer.sendall(piece)
            if manner.resets:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return []
            # Half of it: of TLS without a goodbye, which Python's own method takes for the end of both.
            socket.socket.shutdown(peer, socket.SHUT_WR)
        except OSError:
            # It was refused before all was sent; why is still there to be read.
            pass
        # A reset, or an end of TLS without a goodbye: what came before it counts.
        with suppress(ConnectionError, ssl.SSLError):
            while data := peer.recv(65536):
                said += data
    return read_answers(bytes(said))


def read_answers(said: bytes) -> list[Answer]:
    """Take a connection's bytes apart; one that ends in the middle of an answer is no answer."""
    answers, stream = [], io.BytesIO(said)
    while line := stream.readline():
        assert line.startswith(b"HTTP/1."), said
        status, headers = int(line.split()[1]), http.client.parse_headers(stream)
        length, place = int(headers.get("Content-Length", "0")), stream.tell()
        # That of a HEAD has a length and no body; no body of ours begins like an answer.
        has_body = place < len(said) and not said.startswith(b"HTTP/1.", place)
        body = stream.read(length) if has_body else b""
        if status >= 200 and (not has_body or len(body) == length):
            answers.append(Answer(status, body, headers.get_content_type() == "application/json"))
    return answers


def head_of(request: Sent, *more: tuple[str, str], version: str = "HTTP/1.1") -> bytes:
    """The head of a request, as bytes; what is in its headers already stands."""
    headers = [("Host", "localhost"), *request.headers.items(), *more]
    lines = [
        f"{request.verb} {request.path or '/'} {version}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    text = "\r\n".join(lines) + "\r\n\r\n"
    return text.encode("utf-8", "surrogatepass") if not text.isascii() else text.encode()


def with_length(request: Sent) -> bytes:
    """The request as it should be sent, unless its headers say otherwise already."""
    known = {name.lower() for name in request.headers}
    length = () if "content-length" in known else (("Content-Length", str(len(request.body))),)
    return head_of(request, *length) + request.body


def manner_of(rng: random.Random, requests: Sequence[Sent]) -> Manner:
    """Choose how one or several requests travel; only the first, unless they travel together."""
    return rng.choice(_MANNERS)(rng, requests)


def _whole(rng: random.Random, requests: Sequence[Sent]) -> Manner:
    return Manner("whole", (with_length(requests[0]),))


def _pieces(rng: random.Random, requests: Sequence[Sent]) -> Manner:
    data = with_length(requests[0])
    cuts = sorted(rng.randrange(len(data)) for _ in range(rng.choice((1, 3, 20))))
    pieces = tuple(data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True))
    return Manner("in pieces", tuple(piece for piece in pieces if piece))


def _pipelined(rng: random.Random, requests: Sequence[Sent]) -> Manner:
    data = b"".join(with_length(each) for each in requests)
    return Manner("pipelined", (data,))


def _chunked(rng: random.Random, requests: Sequence[Sent]) -> Manner:
    request, size = requests[0], rng.choice((1, 7, 4096, 1 << 20))
    headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
    body = request.body[: size * 50]
    chunks = [body[begin : begin + size] for begin in range(0, len(body), size)]
    text = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    what = rng.randrange(8)
    if what == 0:
        text = rng.choice(
            (b"zz\r\nabc\r\n", b"-1\r\n", b"f" * 30 + b"\r\n", b"3\r\nabcdef", b"3;\x00\r\nabc\r\n")
        )
    elif what == 1:
        text = text[: rng.randrange(len(text))]
    encoding = rng.choice(
        ("chunked", "chunked", "Chunked", "gzip, chunked", "chunked, chunked", "identity", "x")
    )
    more = [("Transfer-Encoding", encoding)]
    if rng.randrange(4) == 0:
        more.append(("Content-Length", str(len(request.body))))
    sent = Sent(request.verb, request.parts, headers=headers)
    return Manner("chunked", (head_of(sent, *more) + text,))


def _cut(rng: random.Random, requests: Sequence[Sent]) -> Manner:
    data = with_length(requests[0])
    place = rng.randrange(len(data))
    return Manner("cut off", (data[:place],), is_whole=False, resets=rng.random() < 0.3)


def _length(rng: random.Random, requests: Sequence[Sent]) -> Manner:
    request = requests[0]
    wrong = rng.choice(
        (
            "-1",
            "",
            "x",
            "1, 2",
            "0x10",
            "+5",
            "9" * 30,
            str(len(request.body) + 9),
            str(len(request.body) // 2),
            " 7 ",
        )
    )
    headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
    more = [("Content-Length", wrong)]
    if rng.randrange(3) == 0:
        more.append(("Content-Length", str(len(request.body))))
    data = head_of(Sent(request.verb, request.parts, headers=headers), *more) + request.body
    # Where fewer bytes count than were sent, the others are a request of their own.
    return Manner("odd length", (data,), is_whole=False)


def _odd_head(rng: random.Random, requests: Sequence[Sent]) -> Manner:
    data = with_length(requests[0])
    head, _, body = data.partition(b"\r\n\r\n")
    what = rng.randrange(9)
    if what == 0:
        changed = bytearray(head)
        for _ in range(rng.choice((1, 1, 3))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        head = bytes(changed)
    elif what == 1:
        head = head.replace(b"\r\n", b"\n")
    elif what == 2:
        head += b"\r\n" + rng.choice((b" folded", b"No colon", b": empty", b"A\0b: c", b"X: \r y", b"X : y"))
    elif what == 3:
        head += b"".join(b"\r\nX-%d: %b" % (number, b"y" * 100) for number in range(rng.choice((120, 900))))
    elif what == 4:
        version = rng.choice((b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.1x", b""))
        head = head.replace(b"HTTP/1.1", version, 1)
    elif what == 5:
        expected = rng.choice((b"100-continue", b"200-ok", b""))
        head += b"\r\nExpect: " + expected
    elif what == 6:
        head += rng.choice(
            (
                b"\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQ",
                b"\r\nUpgrade: websocket\r\nConnection: Upgrade",
                b"\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\nX-Forwarded-For: 1.1.1.1",
                b"\r\nRange: bytes=0-,5-1,-0",
                b"\r\nAuthorization: Bearer x",
                b"\r\nConnection: close, keep-alive, x",
            )
        )
    elif what == 7:
        head = head.replace(
            b"Host: localhost", rng.choice((b"Host: ", b"Host: a\r\nHost: b", b"X: y", b"Host: \xff")), 1
        )
    else:
        head = (
            rng.choice(
                (
                    b"PRI * HTTP/2.0",
                    b"\x16\x03\x01\x02\x00\x01",
                    b"GET  / HTTP/1.1",
                    b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1",
                    b"",
                    b"\r\n" * 9,
                )
            )
            + head
        )
    return Manner("odd head", (head + b"\r\n\r\n" + body,), is_whole=False)


_MANNERS: tuple[Callable[[random.Random, Sequence[Sent]], Manner], ...] = (
    _whole, _whole, _pieces, _pipelined, _pipelined, _chunked, _cut, _length, _odd_head, _odd_head,
)  # fmt: skip
