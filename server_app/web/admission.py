"""Uploads at once: a device has its share, and what only asks always finds a thread."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from werkzeug.exceptions import ServiceUnavailable


class Admission:
    """Counts the bodies that are being received, and refuses those that are too many.

    Args:
        each: At once of one device.
        in_all: At once.
    """

    def __init__(self, each: int, in_all: int) -> None:
        self._each, self._in_all = each, in_all
        self._lock, self._of = threading.Lock(), Counter[str]()
        self._storing: dict[str, threading.RLock] = {}

    @contextlib.contextmanager
    def upload(self, client_id: str) -> Iterator[None]:
        """Receive one body of a device.

        Raises:
            ServiceUnavailable: It has too many on the way, or all devices together have.
        """
        with self._lock:
            if self._of[client_id] >= self._each:
                raise ServiceUnavailable(
                    f"{client_id} has {self._each} uploads on the way already: wait for one"
                )
            if self._of.total() >= self._in_all:
                raise ServiceUnavailable(f"{self._in_all} uploads are on the way already: come again")
            self._of[client_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._of[client_id] -= 1
                self._of += Counter()

    def storing(self, client_id: str) -> contextlib.AbstractContextManager[object]:
        """Change what is stored of a member, one change after the other: replaced blobs go at once."""
        with self._lock:
            return self._storing.setdefault(client_id, threading.RLock())
