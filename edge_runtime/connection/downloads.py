"""A file from the server over a link that breaks: what has arrived stays, and the rest is asked for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import httpx

from edge_runtime.connection.answers import BINARY, OddAnswerError, check_type
from gkt_core.wire.protocol import SHA256_HEADER

_SECONDS_BETWEEN_LINES = 10.0


class Download:
    """One file, over as many tries as it takes.

    Args:
        name: For the log.
        note: Hears from time to time how far it is.

    Attributes:
        headers: Of the next try.
    """

    def __init__(self, name: str, note: Callable[[str], None]) -> None:
        # What is compressed on the way cannot go on in the middle.
        self.headers = {"Accept-Encoding": "identity"}
        self._name, self._note, self._told = name, note, time.monotonic()
        self._data, self._sha256 = bytearray(), ""

    def read(self, response: httpx.Response) -> bytes:
        """Take what an answer holds, and give the whole file.

        Raises:
            OddAnswerError: Something else than the server sent it, or it changed on its way.
            TransportError: The connection broke; the next try goes on from there.
        """
        check_type(response, BINARY)
        sha256 = response.headers.get(SHA256_HEADER, "").lower()
        begin = len(self._data)
        if response.status_code != 206:
            # The first part, or another file by now.
            self._begin_anew(sha256)
        elif sha256 != self._sha256 or not _range(response).startswith(f"bytes {begin}-"):
            self._begin_anew("")
            raise OddAnswerError("another part of the file than was asked for: a proxy or its cache")
        length = response.headers.get("Content-Length", "")
        total = f" of {len(self._data) + int(length):,}" if length.isdecimal() else ""
        for chunk in response.iter_bytes():
            self._data += chunk
            if "Content-Encoding" not in response.headers and sha256:
                self.headers |= {"Range": f"bytes={len(self._data)}-", "If-Range": f'"{sha256}"'}
            if time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
                self._told = time.monotonic()
                self._note(f"{self._name}: {len(self._data):,}{total} bytes")
        data = bytes(self._data)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            self._begin_anew("")
            raise OddAnswerError(
                f"{len(data):,} bytes that are not the server's: a proxy cut or changed them"
            )
        return data

    def _begin_anew(self, sha256: str) -> None:
        self._data, self._sha256 = bytearray(), sha256
        for name in ("Range", "If-Range"):
            self.headers.pop(name, None)


def _range(response: httpx.Response) -> str:
    return str(response.headers.get("Content-Range", "")).strip().lower()
