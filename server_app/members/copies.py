"""Notice processes that show one device's secret at once: its state folder was copied.

A device says with each request which process it is, by a number that it draws at its start. One that was
restarted is another process, and the one before is not heard of again, but for a request that was on its
way. Those that are heard of again and again, by turns, are all alive; the youngest of them is ended, until
one is left.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gkt_core.errors import ForbiddenError

# A request on its way from a process that was killed makes two: back to it, and from it.
SURE_TURNS = 3
_PROCESS = re.compile("[0-9a-f]{16}")
_MOST_KNOWN = 8


def copied_words(client_id: str) -> str:
    """Say what is wrong."""
    return f"two processes show the secret of {client_id} by turns: a state folder was copied"


@dataclass(slots=True)
class _Heard:
    """Of one device: its processes in the order of their starts, and those that came back since the last."""

    last: str
    known: list[str]
    turns: list[str] = field(default_factory=list)
    ended: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_KNOWN))


class Copies:
    """Watches the devices of one run; threads may use it.

    Args:
        told: Called with a device's name once it is sure that there are two of it.
    """

    def __init__(self, told: Callable[[str], None] = lambda client_id: None) -> None:
        self._told, self._lock = told, threading.Lock()
        self._devices: dict[str, _Heard] = {}

    def hear(self, client_id: str, process: str) -> None:
        """Note which process of a device asks; one that says none, of an earlier version, is not told apart.

        Raises:
            ForbiddenError: It is the youngest of several that are alive.
        """
        if not _PROCESS.fullmatch(process):
            return
        with self._lock:
            heard = self._devices.setdefault(client_id, _Heard(process, [process]))
            is_found_out = process not in heard.ended and self._takes_turns(heard, process)
            is_ended = process in heard.ended
        if is_found_out:
            self._told(client_id)
        if is_ended:
            raise ForbiddenError(
                f"{copied_words(client_id)}; this one began later and is ended: give it another --state-dir "
                "and a link of its own (gkt enroll), or stop the other one and give this command again"
            )

    @staticmethod
    def _takes_turns(heard: _Heard, process: str) -> bool:
        """Note a process; say whether it is sure by now that there are several."""
        if process == heard.last:
            return False
        heard.last = process
        if process not in heard.known:
            # Another start: it is the youngest from here on.
            heard.known, heard.turns = [*heard.known, process][-_MOST_KNOWN:], []
            return False
        heard.turns.append(process)
        if len(heard.turns) < SURE_TURNS:
            return False
        youngest = max(heard.turns, key=heard.known.index)
        heard.known.remove(youngest)
        heard.ended.append(youngest)
        heard.turns = []
        return True
