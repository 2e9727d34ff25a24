"""Look at the run once for all who watch it, as often as a share of a core allows.

Who looks now and then sees it as it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from server_app.overview.messages import Overview

# Of a core, for looks, over time; and seconds of a core that may be spent at once after a rest.
LOOK_SHARE, _BURST_SECONDS = 0.003, 0.25


class SharedLook:
    """The last look at a run, renewed while there is something left to spend on looks.

    Args:
        look: Looks at the run.
        clock: Seconds that only grow.
        spent: Seconds of a core that this thread has used.
    """

    def __init__(
        self,
        look: Callable[[], Overview],
        *,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._look, self._clock, self._spent = look, clock, spent
        self._lock = threading.Lock()
        self._seen: Overview | None = None
        self._left, self._counted_at = _BURST_SECONDS, clock()

    def latest(self) -> Overview:
        """The run as it is, or as it was a moment ago where looks have become dear.

        Raises:
            StorageUnavailableError: The database does not answer.
        """
        with self._lock:
            now = self._clock()
            self._left = min(_BURST_SECONDS, self._left + LOOK_SHARE * (now - self._counted_at))
            self._counted_at = now
            if self._seen is None or self._left > 0:
                began = self._spent()
                self._seen = self._look()
                self._left -= self._spent() - began
            return self._seen

    def renew(self) -> None:
        """Let the next one who asks look anew: a person has changed something."""
        with self._lock:
            self._seen = None
