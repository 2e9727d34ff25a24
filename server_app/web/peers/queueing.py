"""How many requests may have or await a thread: of all, of who shows no secret, and of one device.

Each takes milliseconds. Whoever holds one device's secret may come again as fast as it is sent away, over
thousands of connections: beyond its share it is told so by the loop itself, which costs no thread and no look
at the database, and all others go on as if it were not there.
"""

from __future__ import annotations

import re
from collections import Counter

# At once, of each queue; of one device, which has a few uploads on the way and asks one thing beside.
MOST_ASKED, MOST_OF_A_DEVICE = 1024, 32
# Who asks for a file of a page, a document, or shows no secret, is answered by few threads: a crowd of them
# delays no device, and nobody who asks how the server is.
GUEST_THREADS = 8
GUEST, KNOWN = "guest", "known"
_GUEST = re.compile(
    rb"GET /(?:(?!v1/|healthz|readyz)|v1/(?!health/)(?!.*\r\nauthorization:))", re.IGNORECASE | re.DOTALL
)
# As it is shown, whether it holds or not. Those who join with one link, or share a token, are many.
_DEVICE = re.compile(rb"\r\nauthorization:[ \t]*bearer[ \t]+(device~[^\s]+)", re.IGNORECASE)
_END = b"\r\n\r\n"


class QueueFullError(Exception):
    """There is no room for another request; says of whom there are how many."""


class Queueing:
    """Counts requests from when they are there until they are answered."""

    def __init__(self) -> None:
        self._num: Counter[str] = Counter()

    def take(self, head: bytes | bytearray) -> tuple[str, ...]:
        """Count a request.

        Args:
            head: Of the request; whatever comes behind it is not looked at.

        Returns:
            What it is counted as: its queue, and the device.

        Raises:
            QueueFullError: Its queue is full, or its device has its share of it.
        """
        queue = GUEST if _GUEST.match(head) else KNOWN
        shown = _DEVICE.search(head, 0, head.find(_END) + len(_END))
        counted: tuple[str, ...] = (queue,)
        if self._num[queue] >= MOST_ASKED:
            raise QueueFullError(f"{MOST_ASKED} requests are being answered")
        if shown is not None:
            device = shown[1].decode("latin-1")
            if self._num[device] >= MOST_OF_A_DEVICE:
                raise QueueFullError(f"{MOST_OF_A_DEVICE} requests of this device are being answered")
            counted = (queue, device)
        self._num.update(counted)
        return counted

    def give_back(self, counted: tuple[str, ...]) -> None:
        """Count a request no more."""
        for each in counted:
            self._num[each] -= 1
            if not self._num[each]:
                del self._num[each]
