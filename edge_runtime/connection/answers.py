"""Tell an answer of gkt serve from one of something between: a proxy, a CDN, a captive portal.

Only what a gkt server says may end a device. Its errors are :class:`gkt_core.wire.protocol.ErrorBody`, its
messages JSON with the fields of the protocol, its files ``application/octet-stream`` with their SHA-256 in a
header. Whatever else comes is an :class:`OddAnswerError`: it is asked again, and says what it may be.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from edge_runtime.connection.proxies import proxy_hint
from gkt_core import errors
from gkt_core.errors import GKTError, MessageError
from gkt_core.printable import printable
from gkt_core.wire.message_json import PROTOCOL_HEADER
from gkt_core.wire.protocol import LONGEST_TEXT, MAX_MESSAGE_BYTES, ErrorBody, from_json

MessageT = TypeVar("MessageT")

# Of a body within the time that nothing may move: 17 bytes a second, slower than any link that trains.
LEAST_BYTES = 1024
_ERROR_FIELDS = len(dataclasses.fields(ErrorBody))
JSON, BINARY, PEM = "application/json", "application/octet-stream", "application/x-pem-file"

_ELSEWHERE = "another server answers at this address: is it the one that gkt serve printed?"
_PORTAL = (
    "a captive portal (open any page in this network's browser and log in) or another server: is this the "
    "address that gkt serve printed?"
)
_GATEWAY = "a proxy or CDN in front of the server does not reach it: is gkt serve running?"
_DENIED = f"a proxy, a firewall, or {_ELSEWHERE}"
# Of a status that no gkt server gives without an error of its own.
_HINTS = {
    401: f"a proxy that wants a password, or {_ELSEWHERE}",
    403: _DENIED,
    404: f"a proxy or CDN whose route to the server is gone, or {_ELSEWHERE}",
    405: _DENIED,
    407: proxy_hint("407"),
    408: "a proxy that gave up waiting: the connection may be too slow for it",
    411: "a proxy that does not let such uploads through",
    413: "a proxy that limits uploads: raise its limit (nginx: client_max_body_size)",
    429: "a proxy or CDN that limits how often it is asked",
    451: _DENIED,
    500: "a proxy in trouble, or the server itself",
    502: _GATEWAY,
    503: _GATEWAY,
    504: _GATEWAY,
    511: _PORTAL,
}
# The same of a request that brings nothing.
_OF_QUESTIONS = {
    411: f"a proxy that wants a length where nothing is sent, or {_ELSEWHERE}",
    413: _DENIED,
}


class OddAnswerError(Exception):
    """An answer that no gkt server gives; another try may reach the server."""


def message_of(message_type: type[MessageT], response: httpx.Response, *, stall_seconds: float) -> MessageT:
    """Read a message that a gkt server sent; of one that hardly moves no more than ``stall_seconds``.

    Raises:
        OddAnswerError: Something else sent it.
        MessageError: A gkt server sent it, of a version that this one does not understand.
    """
    check_type(response, JSON)
    body = _body(response, stall_seconds)
    try:
        return from_json(message_type, body)
    except MessageError as error:
        if _is_meant(message_type, body):
            raise
        raise OddAnswerError(f"an answer of another server, or one cut short ({error}): {_PORTAL}") from error


def text_of(response: httpx.Response, *, stall_seconds: float) -> bytes:
    """Read a certificate (PEM) that a gkt server sent.

    Raises:
        OddAnswerError: Something else sent it.
    """
    check_type(response, PEM)
    return _body(response, stall_seconds)


def refusal_of(response: httpx.Response, *, stall_seconds: float) -> GKTError:
    """Make the error in a gkt server's answer one of the class that it raised there.

    Raises:
        OddAnswerError: Something between refused, not the server.
    """
    try:
        check_type(response, JSON)
        data = _body(response, stall_seconds)
        body = from_json(ErrorBody, data)
        # Of 1.0, whose servers do not say what they speak, an error has no more: many others' have these two.
        if PROTOCOL_HEADER not in response.headers and len(json.loads(data)) != _ERROR_FIELDS:
            raise MessageError("an error with more fields than those of 1.0")
    except (MessageError, OddAnswerError) as error:
        raise OddAnswerError(_refused_between(response)) from error
    error_type = getattr(errors, body.error, None)
    message = printable(body.message[:LONGEST_TEXT])
    if isinstance(error_type, type) and issubclass(error_type, GKTError):
        return error_type(message)
    return MessageError(f"the server answered {response.status_code}: {message}")


def check_type(response: httpx.Response, expected: str) -> None:
    """Refuse an answer of another media type.

    Raises:
        OddAnswerError: Something else than the server sent it.
    """
    kind = _media_type(response)
    if kind != expected:
        raise OddAnswerError(f"{kind or 'an answer of no type'} where {expected} was expected: {_PORTAL}")


def raw_pieces(response: httpx.Response, *, stall_seconds: float) -> Iterator[bytes]:
    """Give a body as it comes, a little at a time.

    Nothing is decompressed: nobody asked for that, and a kilobyte can become gigabytes.

    Args:
        response: The answer.
        stall_seconds: How long it may bring next to nothing: a byte now and then is no transfer.

    Raises:
        OddAnswerError: It is compressed.
        ReadTimeout: It hardly moves.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise OddAnswerError(
            f"the answer cannot be decoded ({_named(encoding)}, which nobody asked for): a proxy changed it"
        )
    began, came = time.monotonic(), 0
    # A transport that is no socket may have read it all: an application, in tests.
    for piece in (response.content,) if response.is_stream_consumed else response.iter_raw():
        came += len(piece)
        if came >= LEAST_BYTES:
            began, came = time.monotonic(), 0
        elif time.monotonic() - began > stall_seconds:
            raise httpx.ReadTimeout(f"fewer than {LEAST_BYTES} bytes in {stall_seconds:.0f} s")
        yield piece


def _named(text: str) -> str:
    return text[:20] if text.isprintable() else "something"


def _body(response: httpx.Response, stall_seconds: float) -> bytes:
    """Read what could be a message, and no more of what is longer."""
    body = bytearray()
    for chunk in raw_pieces(response, stall_seconds=stall_seconds):
        body += chunk
        if len(body) > MAX_MESSAGE_BYTES:
            raise OddAnswerError(f"more than any message of gkt serve holds: {_PORTAL}")
    return bytes(body)


def _refused_between(response: httpx.Response) -> str:
    status = response.status_code
    if 300 <= status < 400:
        hint = f"it leads to {_place(response)}: {_PORTAL}"
    elif 520 <= status <= 530:
        hint = "a CDN does not reach the server: is gkt serve running?"
    else:
        hints = _HINTS if _has_body(response) else _HINTS | _OF_QUESTIONS
        hint = hints.get(status, _DENIED if status < 500 else _GATEWAY)
    return f"status {status} without an error of gkt serve: {hint}"


def _has_body(response: httpx.Response) -> bool:
    return response.request.method not in ("GET", "HEAD")


def _media_type(response: httpx.Response) -> str:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind[:60] if kind.isprintable() else ""


def _place(response: httpx.Response) -> str:
    """Say where a redirect leads: scheme and host alone, as the rest may hold whatever a portal likes."""
    try:
        target = urlsplit(response.headers.get("Location", ""))
        place = f"{target.scheme}://{target.hostname}"[:100] if target.hostname else "another page"
    except ValueError:
        return "nowhere"
    return place if place.isprintable() else "another page"


def _is_meant(message_type: type[object], data: bytes) -> bool:
    """Say whether JSON could be this message of another version: it has a field of it, or more of them."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return False
    names = {each.name for each in dataclasses.fields(message_type)}  # type: ignore[arg-type] # messages are dataclasses
    return isinstance(values, dict) and not names.isdisjoint(values)
