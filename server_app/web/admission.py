"""Bodies on their way: a device has its share of them, and none when its secret has ended.

What only asks always finds a thread. A body may take hours on a slow link, and a thread waits for it in the
kernel; whether its device's secret still holds is therefore looked at beside it, by one thread for all.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from werkzeug.exceptions import ServiceUnavailable

from gkt_core.wire.credentials import Bearer
from server_app.storage_errors import STORAGE_ERRORS
from server_app.store.credentials import CredentialStore

_LOOK_SECONDS = 0.5


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


@dataclass(eq=False, slots=True)
class Transfer:
    """One body that is on its way.

    Attributes:
        bearer: Of the device that sends it.
        connection: Where it comes from.
        is_cut: Whether its device's secret has ended.
    """

    bearer: Bearer
    connection: Any = field(repr=False)
    is_cut: bool = False

    def cut(self) -> None:
        """Let whoever waits for more of it wait no longer; an answer can still be sent.

        Who reads from TLS looks at ``is_cut`` now and then: its socket stays as it is.
        """
        self.is_cut = True
        if not isinstance(self.connection, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RD)


class Transfers:
    """Bodies that are on their way, and one thread that looks at their devices as long as there are any.

    Args:
        credentials: Knows the secrets of devices.
        seconds: Between two looks; bodies that arrive sooner cost none.
    """

    def __init__(self, credentials: CredentialStore, seconds: float = _LOOK_SECONDS) -> None:
        self._credentials, self._seconds = credentials, seconds
        self._lock, self._transfers = threading.Lock(), set[Transfer]()
        self._is_watched = False

    @contextlib.contextmanager
    def watched(self, bearer: Bearer, connection: Any) -> Iterator[Transfer]:
        """Look at a device's secret while the block receives a body of it."""
        transfer = Transfer(bearer, connection)
        with self._lock:
            self._transfers.add(transfer)
            begins, self._is_watched = not self._is_watched, True
        if begins:
            threading.Thread(target=self._watch, name="transfers", daemon=True).start()
        try:
            yield transfer
        finally:
            with self._lock:
                self._transfers.discard(transfer)

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(self._seconds)
            with self._lock:
                transfers = list(self._transfers)
                if not transfers:
                    self._is_watched = False
                    return
            for transfer in transfers:
                # A storage that does not answer ends no upload; the secret is looked at again at its end.
                with contextlib.suppress(*STORAGE_ERRORS):
                    known = self._credentials.find(transfer.bearer.name)
                    if known is None or known.revoked or not known.fits(transfer.bearer.secret):
                        transfer.cut()
