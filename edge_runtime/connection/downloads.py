"""A file from the server over a link that breaks: what has arrived stays, and the rest is asked for.

It is hashed while it is written, and never grows beyond what it may have: who sends more is not listened to.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable

import httpx

from edge_runtime.connection.answers import BINARY, OddAnswerError, check_type, raw_pieces
from edge_runtime.connection.kept_part import Place
from gkt_core.errors import ServerUnavailableError, UnsafeModelError
from gkt_core.wire.protocol import SHA256_HEADER

_SECONDS_BETWEEN_LINES = 10.0
_PIECE_BYTES = 1 << 20
# All tries together may bring so many times what a file may have: a link that breaks costs no more than its
# last piece, and one that never lets a part be asked for begins anew a few times.
_MOST_TIMES, _SLACK_BYTES = 4, 1 << 20


class Download:
    """One file, over as many tries as it takes.

    Args:
        name: For the log.
        note: Hears from time to time how far it is.
        place: Where it is written; what is there is not the file until :meth:`read` returns.
        most_bytes: What it may have.
        sha256: What it has to be; empty where that is not known.
        stall_seconds: How long it may bring next to nothing.

    Attributes:
        headers: Of the next try.
        num_bytes: That are there.
        farthest: The most that were ever there; what is sent once more brings nothing.
    """

    def __init__(
        self,
        name: str,
        note: Callable[[str], None],
        place: Place,
        *,
        most_bytes: int,
        sha256: str = "",
        stall_seconds: float,
    ) -> None:
        # What is compressed on the way cannot go on in the middle.
        self.headers = {"Accept-Encoding": "identity"}
        self.num_bytes = self.farthest = self._num_received = 0
        self._name, self._note, self._told = name, note, time.monotonic()
        self._stream, self._most_bytes, self._expected = place.stream, most_bytes, sha256
        self._stall_seconds, self._on_begin = stall_seconds, place.on_begin
        self._hash, self._sha256 = hashlib.sha256(), ""
        if place.part_of and place.part_of == (sha256 or place.part_of):
            self._take_up(place.part_of)

    def read(self, response: httpx.Response) -> int:
        """Take what an answer holds; how many bytes the file has, which is whole then.

        Raises:
            OddAnswerError: Something else than the server sent it, it changed on its way, or is too long.
            ServerUnavailableError: All tries together brought far more than the file has.
            UnsafeModelError: The server itself says that it is another file than its manifest names.
            TransportError: The connection broke; the next try goes on from there.
        """
        check_type(response, BINARY)
        sha256 = response.headers.get(SHA256_HEADER, "").lower()
        if self._expected and sha256 and sha256 != self._expected:
            raise UnsafeModelError(
                f"{self._name} is not the file that the server's own manifest names (SHA-256): nothing of "
                "it was kept; whoever runs the server must look after its bundle"
            )
        if response.status_code != 206:
            # The first part, or another file by now.
            self._begin_anew(sha256)
        elif sha256 != self._sha256 or not _range(response).startswith(f"bytes {self.num_bytes}-"):
            self._begin_anew("")
            raise OddAnswerError("another part of the file than was asked for: a proxy or its cache")
        length = response.headers.get("Content-Length", "")
        total = f" of {self.num_bytes + int(length):,}" if length.isdecimal() and len(length) < 16 else ""
        if len(length) > 15 or (length.isdecimal() and self.num_bytes + int(length) > self._most_bytes):
            raise self._too_long()
        for piece in raw_pieces(response, stall_seconds=self._stall_seconds):
            if self.num_bytes + len(piece) > self._most_bytes:
                raise self._too_long()
            self._num_received += len(piece)
            if self._num_received > _MOST_TIMES * self._most_bytes + _SLACK_BYTES:
                raise ServerUnavailableError(
                    f"{self._name}: {self._num_received:,} bytes came of a file that has "
                    f"{self._most_bytes:,} at most, and never all of it: something between breaks off "
                    "answers and lets no part be asked for, or the server means harm"
                )
            self._stream.write(piece)
            self._hash.update(piece)
            self.num_bytes += len(piece)
            self.farthest = max(self.farthest, self.num_bytes)
            if sha256:
                self._ask_for_the_rest()
            if time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
                self._told = time.monotonic()
                self._note(f"{self._name}: {self.num_bytes:,}{total} bytes")
        expected = self._expected or sha256
        if expected and self._hash.hexdigest() != expected:
            num_bytes = self.num_bytes
            self._begin_anew("")
            raise OddAnswerError(
                f"{num_bytes:,} bytes that are not the server's: a proxy cut or changed them"
            )
        return self.num_bytes

    def _too_long(self) -> OddAnswerError:
        self._begin_anew("")
        return OddAnswerError(
            f"more than the {self._most_bytes:,} bytes that the file has: another server, or one that "
            "means harm"
        )

    def _take_up(self, sha256: str) -> None:
        """Go on with what an earlier process wrote, but for its last byte: there is a rest to ask for."""
        num_bytes = self._stream.seek(0, os.SEEK_END) - 1
        if not 0 < num_bytes < self._most_bytes:
            return
        self._stream.truncate(num_bytes)
        self._stream.seek(0)
        while piece := self._stream.read(_PIECE_BYTES):
            self._hash.update(piece)
        self.num_bytes, self.farthest, self._sha256 = num_bytes, num_bytes, sha256
        self._ask_for_the_rest()
        self._note(f"{self._name}: goes on after {num_bytes:,} bytes that are here")

    def _ask_for_the_rest(self) -> None:
        self.headers |= {"Range": f"bytes={self.num_bytes}-", "If-Range": f'"{self._sha256}"'}

    def _begin_anew(self, sha256: str) -> None:
        self._stream.seek(0)
        self._stream.truncate()
        self._on_begin(sha256)
        self.num_bytes = 0
        self._hash, self._sha256 = hashlib.sha256(), sha256
        for name in ("Range", "If-Range"):
            self.headers.pop(name, None)


def _range(response: httpx.Response) -> str:
    return str(response.headers.get("Content-Range", "")).strip().lower()
