"""Receive request bodies of any size in flat memory: to a file while they are hashed and decompressed.

Each piece is received, hashed and written while it is in the processor's cache; nothing holds a whole body.
Behind gunicorn the pieces come from its socket into one buffer a thread: its own reader copies each byte
several times, which costs more than everything else here (docs/adr/0009). Elsewhere, and where a body does
not say how long it is, they come from the WSGI stream.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flask import request
from gunicorn.http.body import LengthReader
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge, RequestTimeout

from gkt_core.errors import ShardError
from gkt_core.wire.compression import FrameDecompressor
from gkt_core.wire.credentials import DEVICE, OPERATOR
from gkt_core.wire.levels.frame import LevelFeatures
from gkt_core.wire.levels.transport import FrameOfLevels
from gkt_core.wire.protocol import LEVELS, ZSTD
from server_app.web.access import caller, cut_when_revoked
from server_app.web.admission import Admission
from server_app.web.asking import close_after, send_continue
from server_app.web.context import context
from server_app.web.operations import MOST_SMALL_MESSAGE_BYTES
from server_app.web.peers.answering import LEAST_BYTES_PER_SECOND

_CHUNK_BYTES = 256 * 1024
# But for its beginning, a body must bring so much on average, and a message that is not small more.
_LEAST_MESSAGE_BYTES_PER_SECOND, _BEGINNING_SECONDS = 10_000, 10.0
# How soon a body that comes over TLS ends once its device is revoked.
_LOOK_SECONDS = 0.5
_Receiver = Callable[[Any, memoryview, int], int]
_local = threading.local()


@dataclass(frozen=True, slots=True)
class Received:
    """A body that has arrived.

    Attributes:
        sha256: Of the body as it was sent.
        content_sha256: Of the file, which differs where the body was compressed.
        num_bytes: Its size as it was sent.
        error: Why it could not be decompressed; the file is then of no use.
        largest: The greatest magnitude of any four bytes behind the file's header, counted from its beginning
            and read as a float. No float tensor at such a place holds a larger one. Infinity if not known.
    """

    sha256: str
    content_sha256: str
    num_bytes: int
    error: ShardError | None
    largest: float


def receive(
    path: Path, max_bytes: int, *, look_at_floats: bool, levels: LevelFeatures | None = None
) -> Received:
    """Write the body of the current request to a file, decompressed.

    Args:
        path: The file, made new.
        max_bytes: The most that may come out of a compressed body.
        look_at_floats: Whether to find out ``largest``, which is cheap while the bytes are in the cache.
        levels: What the levels are, of a body whose levels are coded; None where none are taken.

    Raises:
        HTTPException: The body is too large, cut short, or stalls.
        OSError: The file cannot be written.
        ShardError: The content encoding is unknown.
    """
    digest, num_bytes = hashlib.sha256(), 0
    error: ShardError | None = None
    decompressor = _decompressor(max_bytes, levels)
    content = digest if decompressor is None else hashlib.sha256()
    largest = 0.0 if look_at_floats and decompressor is None else math.inf
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        for chunk in body_chunks():
            digest.update(chunk)
            is_first = num_bytes == 0
            num_bytes += len(chunk)
            if decompressor is None:
                if math.isfinite(largest):
                    largest = max(largest, _largest_float(chunk, is_first=is_first))
                _write(descriptor, chunk)
            elif error is None:
                try:
                    for piece in decompressor.feed(chunk):
                        content.update(piece)
                        _write(descriptor, memoryview(piece))
                except ShardError as trouble:
                    # Said later: a body that changed on its way is sent again, whatever it became.
                    error = trouble
        if decompressor is not None and error is None:
            try:
                rest = decompressor.finish()
                content.update(rest)
                _write(descriptor, memoryview(rest))
            except ShardError as trouble:
                error = trouble
    finally:
        os.close(descriptor)
    return Received(digest.hexdigest(), content.hexdigest(), num_bytes, error, largest)


def receive_message(max_bytes: int = MOST_SMALL_MESSAGE_BYTES) -> bytes:
    """The body of the current request, which is a message.

    A small one has come as a whole (:mod:`server_app.web.connections`). One that has not holds a thread while
    it comes: each device may hold few, and not for long.

    Args:
        max_bytes: The most that it may have.

    Raises:
        HTTPException: The body is too large, cut short, or stalls; or too many are on their way.
    """
    request.max_content_length = max_bytes
    with _admitted(context().slow_messages):
        return b"".join(bytes(chunk) for chunk in body_chunks(_LEAST_MESSAGE_BYTES_PER_SECOND))


def receive_bytes(max_bytes: int) -> bytes:
    """The body of the current request, decompressed; for bodies that are small beside a shard's file.

    Args:
        max_bytes: The most that a body may hold, compressed or not.

    Raises:
        HTTPException: The body is too large, cut short, or stalls; or too many are on their way.
        ShardError: The content encoding is unknown, or the body cannot be decompressed within the limit.
    """
    # Zstandard may make what it cannot compress a little longer.
    request.max_content_length = max_bytes + max_bytes // 128 + 1024
    decompressor = _decompressor(max_bytes)
    body = bytearray()
    with _admitted(context().admission):
        for chunk in body_chunks():
            if decompressor is None:
                body += chunk
                continue
            for piece in decompressor.feed(chunk):
                body += piece
    if decompressor is not None:
        decompressor.finish()
    return bytes(body)


def _admitted(admission: Admission) -> contextlib.AbstractContextManager[None]:
    """Count a body that is still coming, as one of whoever shows the same secret; an operator is trusted."""
    length = request.content_length or 0
    if length > (request.max_content_length or 0):
        raise RequestEntityTooLarge
    reader = getattr(request.environ["wsgi.input"], "reader", None)
    asks = caller()
    if asks.kind == OPERATOR or not isinstance(reader, LengthReader):
        return contextlib.nullcontext()
    if len(reader.unreader.buf.getbuffer()) >= length:
        return contextlib.nullcontext()
    return admission.upload(f"{asks.kind} {asks.bearer.name}" if asks.kind != DEVICE else asks.client_id)


def _decompressor(
    max_bytes: int, levels: LevelFeatures | None = None
) -> FrameDecompressor | FrameOfLevels | None:
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding == LEVELS and levels is not None:
        return FrameOfLevels(levels, max_bytes)
    if encoding not in ("identity", ZSTD):
        taken = ZSTD if levels is None else f"{ZSTD}, {LEVELS}"
        raise ShardError(f"content encoding {encoding[:20]!r}, expected {taken} or none")
    return FrameDecompressor(max_bytes) if encoding == ZSTD else None


def _largest_float(chunk: memoryview, *, is_first: bool) -> float:
    # Letters of the header of a safetensors file would be large floats.
    begin = 8 + int.from_bytes(chunk[:8], "little") if is_first else 0
    if len(chunk) % 4 or begin % 4 or begin > len(chunk):
        # The end of a file that is no shard of ours, or a chunk after which floats are split.
        return math.inf
    floats = np.frombuffer(chunk[begin:], "<f4")
    largest = max(abs(float(floats.max(initial=0.0))), abs(float(floats.min(initial=0.0))))
    return largest if math.isfinite(largest) else math.inf


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def body_chunks(least_rate: int = LEAST_BYTES_PER_SECOND) -> Iterator[memoryview]:
    """The body of the current request, piece by piece; a piece is valid until the next one is asked for.

    Args:
        least_rate: Bytes a second that it must bring, but for its beginning.

    Raises:
        AuthenticationError: The device's secret has ended meanwhile.
        HTTPException: The body is too large, cut short, or stalls.
    """
    limit, length = request.max_content_length, request.content_length
    if limit is not None and length is not None and length > limit:
        raise RequestEntityTooLarge
    stream = request.environ["wsgi.input"]
    reader = getattr(stream, "reader", None)
    try:
        send_continue(request.environ.get("gunicorn.socket"))
        if not isinstance(reader, LengthReader):
            yield from _from_stream()
            return
        with cut_when_revoked() as is_cut:
            yield from _from_socket(stream, reader, is_cut, least_rate)
    except (BlockingIOError, TimeoutError) as error:
        raise RequestTimeout("the body did not go on: send it again") from error
    except (ConnectionError, ssl.SSLError) as error:
        # Not the disk, of which an OSError would tell.
        raise ClientDisconnected from error


def _from_stream() -> Iterator[memoryview]:
    while chunk := request.stream.read(_CHUNK_BYTES):
        yield memoryview(chunk)


def _from_socket(
    stream: Any, reader: LengthReader, is_cut: Callable[[], bool], least_rate: int
) -> Iterator[memoryview]:
    """Yield what gunicorn's reader holds already, and then the rest from the socket."""
    connection = request.environ["gunicorn.socket"]
    buffer = getattr(_local, "buffer", None)
    if buffer is None:
        buffer = _local.buffer = memoryview(bytearray(_CHUNK_BYTES))
    receive_into = _tls_receiver(connection, is_cut) if isinstance(connection, ssl.SSLSocket) else _receive
    # Until all has come: where the next request would begin on this connection is not known.
    stream.failed = True
    first = reader.unreader.take_buffered()
    if len(first) > reader.length:
        reader.unreader.unread(first[reader.length :])
        first = first[: reader.length]
    reader.length -= len(first)
    while len(first) > len(buffer):
        yield memoryview(first[: len(buffer)])
        first = first[len(buffer) :]
    filled, began, num_received = len(first), time.monotonic(), 0
    buffer[:filled] = first
    while filled or reader.length:
        # Full buffers, but for the last: no float is split between two of them.
        while reader.length and filled < len(buffer):
            wanted = min(len(buffer) - filled, reader.length)
            received = receive_into(connection, buffer[filled:], wanted)
            if not received or is_cut():
                raise ClientDisconnected
            reader.length -= received
            filled += received
            num_received += received
            if time.monotonic() - began > _BEGINNING_SECONDS + num_received / least_rate:
                raise TimeoutError
        yield buffer[:filled]
        filled = 0
    stream.failed = False


def _receive(connection: Any, buffer: memoryview, wanted: int) -> int:
    # Asleep until the buffer is full or the stall limit is over, rather than awake for every packet.
    received: int = connection.recv_into(buffer, wanted, socket.MSG_WAITALL)
    return received


def _tls_receiver(connection: ssl.SSLSocket, is_cut: Callable[[], bool]) -> _Receiver:
    """Wait in short pieces: where half of TLS is cut off in the kernel, no answer can be sent any more."""
    silence = connection.gettimeout() or math.inf

    def receive(connection: Any, buffer: memoryview, wanted: int) -> int:
        began = time.monotonic()
        connection.settimeout(min(silence, _LOOK_SECONDS))
        try:
            while True:
                try:
                    received: int = connection.recv_into(buffer, wanted)
                    return received
                except TimeoutError:
                    if is_cut():
                        return 0
                    if time.monotonic() - began >= silence:
                        raise
        finally:
            connection.settimeout(None if silence == math.inf else silence)

    return receive


def close_unread() -> None:
    """Let the connection end with this answer if its request's body was not read to the end.

    No thread waits for the rest: the web server's loop reads it, and the peer comes to see the answer.
    """
    stream = request.environ["wsgi.input"]
    reader = getattr(stream, "reader", None)
    if isinstance(reader, LengthReader) and (stream.failed or reader.length):
        close_after(request.environ.get("gunicorn.socket"))
