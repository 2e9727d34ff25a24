"""Whose requests may have or await a thread, and how many: those of who is known never wait for the others.

Each takes milliseconds. Who shows no secret, or one that nobody has looked at yet, is a *stranger*: few
threads are theirs, however many they are. A secret that holds is remembered for a minute, so that its
requests are told apart by their heads alone, before a thread or the database has to do with them; it has its
share of the places, beyond which it is sent away by the loop itself. Probes of health have threads of their
own. So thousands of connections of nobody's, or of one device's, leave everybody else as they are.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

KNOWN, STRANGER, HEALTH = "known", "stranger", "health"
# Where a Flask application keeps who says which secrets hold.
KNOWS = "gkt-knows"
# Requests at once that have or await a thread of theirs.
MOST_ASKED = {KNOWN: 1024, STRANGER: 1024, HEALTH: 64}
# Of one device, which has a few uploads on the way and asks one thing beside; of any other secret, which many
# may show: a link, a token that devices share, an operator's in the tools of a team.
MOST_OF_A_DEVICE, MOST_OF_A_SECRET = 32, 256
# Beside the threads of who is known.
STRANGER_THREADS, HEALTH_THREADS = 8, 2
# One that was revoked is looked at again after so long.
_REMEMBERED_SECONDS, _MOST_REMEMBERED = 60.0, 8192
_HEALTH = re.compile(rb"GET (?:/[^\s?]*)?/(?:healthz|readyz|v1/health(?:/[a-z]+)?)[\s?]")
_SHOWN = re.compile(rb"\r\nauthorization:[ \t]*([^\r\n]{1,512})", re.IGNORECASE)
_DEVICE = re.compile(rb"bearer[ \t]+device~", re.IGNORECASE)
_END = b"\r\n\r\n"


class QueueFullError(Exception):
    """There is no room for another request; says of whom there are how many."""

    def __init__(self, queue: str, message: str) -> None:
        super().__init__(message)
        self.queue = queue


@dataclass(frozen=True, slots=True)
class Counted:
    """What a request is counted as, from when it is there until it is answered.

    Attributes:
        queue: Whose threads answer it.
        shown: What it shows as its secret; empty for nothing.
        names: The numbers that it is part of.
    """

    queue: str
    shown: str
    names: tuple[str | bytes, ...]


NOT_COUNTED = Counted(STRANGER, "", ())


class Queueing:
    """Counts requests from when they are there until they are answered.

    Args:
        clock: Seconds that only grow.

    Attributes:
        is_checked: Whether somebody says which secrets hold; without, each that is shown is taken for known.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num: Counter[str | bytes] = Counter()
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self.is_checked = False

    def take(self, head: bytes | bytearray) -> Counted:
        """Count a request.

        Args:
            head: Of the request; whatever comes behind it is not looked at.

        Raises:
            QueueFullError: Its queue is full, or its secret has its share of it.
        """
        end = head.find(_END) + len(_END)
        match = _SHOWN.search(head, 0, end)
        shown = b"" if match is None else match[1].strip()
        queue = HEALTH if _HEALTH.match(head) else KNOWN if shown and self._holds(shown) else STRANGER
        if self._num[queue] >= MOST_ASKED[queue]:
            raise QueueFullError(queue, f"{MOST_ASKED[queue]} requests are being answered")
        names: tuple[str | bytes, ...] = (queue,)
        if queue == KNOWN:
            most, whose = (
                (MOST_OF_A_DEVICE, "device") if _DEVICE.match(shown) else (MOST_OF_A_SECRET, "secret")
            )
            name = _name_of(shown)
            if self._num[name] >= most:
                raise QueueFullError(queue, f"{most} requests of this {whose} are being answered")
            names = (queue, name)
        self._num.update(names)
        return Counted(queue, shown.decode("latin-1"), names)

    def give_back(self, counted: Counted) -> None:
        """Count a request no more."""
        for each in counted.names:
            self._num[each] -= 1
            if not self._num[each]:
                del self._num[each]

    def remember(self, shown: str) -> None:
        """Take requests that show this for those of somebody who is known, for a while."""
        name = _name_of(shown.encode("latin-1"))
        self._remembered[name] = self._clock() + _REMEMBERED_SECONDS
        self._remembered.move_to_end(name)
        while len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    def _holds(self, shown: bytes) -> bool:
        return not self.is_checked or self._remembered.get(_name_of(shown), 0.0) > self._clock()


def _name_of(shown: bytes) -> bytes:
    """What a secret is remembered by; not itself."""
    return hashlib.sha256(shown).digest()
