"""How long the head of an answer may take: a read that gets a byte now and then has no limit of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from typing import Any

# A head comes at once when it comes: twice the time in which nothing may move is for the slowest link.
_STALLS = 2


class HeadDeadline:
    """Closes the connection on which the head of an answer takes too long; to be httpx's extension ``trace``.

    Args:
        stall_seconds: How long nothing may move.

    Attributes:
        has_passed: Whether it closed the connection of the last request.
    """

    def __init__(self, stall_seconds: float) -> None:
        self.seconds = _STALLS * stall_seconds
        self.has_passed = False
        self._stream: Any = None
        self._timer: threading.Timer | None = None

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear what the connection does (https://www.encode.io/httpcore/extensions/#trace)."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._stream = info["return_value"]
        elif event.endswith("receive_response_headers.started"):
            self.end()
            self._timer = threading.Timer(self.seconds, self._pass)
            self._timer.daemon = True
            self._timer.start()
        elif event.endswith(("receive_response_headers.complete", "receive_response_headers.failed")):
            self.end()

    def begin(self) -> None:
        """Begin another request."""
        self.end()
        self.has_passed = False

    def end(self) -> None:
        """Wait for no head any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass(self) -> None:
        self.has_passed = True
        connection = None if self._stream is None else self._stream.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
