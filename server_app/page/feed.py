"""Look at a run once for all open pages, and as often as a fixed share of a core allows.

A look costs more the more devices there are, and an answer that repeats it nearly nothing. So however many
pages are open, and however large the run is, looks take at most :data:`LOOK_SHARE` of a core.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gkt_core.wire.protocol import RoundPage, to_json
from server_app.logs.recent import RecentLines
from server_app.overview.judging import next_step, waiting_for
from server_app.overview.messages import Overview
from server_app.overview.shared import LOOK_SHARE
from server_app.page.messages import PageView
from server_app.page.rounds import RoundColumns

# A page is not drawn more often than this.
_LEAST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look saw.

    Attributes:
        body: A :class:`server_app.page.messages.PageView` as JSON.
        etag: Of the body.
    """

    body: bytes
    etag: str


class Feed:
    """The document of the page.

    Args:
        look: Looks at the run.
        read_rounds: Reads finished rounds: those after one, so many at most.
        clock: Seconds that only grow.

    Attributes:
        lines: The last lines of the log; whoever serves lets them be logged to.
    """

    def __init__(
        self,
        look: Callable[[], Overview],
        read_rounds: Callable[[int, int], RoundPage],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lines = RecentLines()
        self._look, self._clock = look, clock
        self._columns = RoundColumns(read_rounds)
        self._lock = threading.Lock()
        self._looked: Looked | None = None
        self._fresh_until = 0.0

    def latest(self) -> Looked:
        """The last look, or a new one where that is too old.

        Raises:
            StorageUnavailableError: The database does not answer.
        """
        # Whoever comes while another one looks is shown what was seen before, and waits only for the first.
        if not self._lock.acquire(blocking=self._looked is None):
            return self._seen()
        try:
            if self._looked is None or self._clock() >= self._fresh_until:
                began = time.thread_time()
                self._looked = self._new_look()
                cost = time.thread_time() - began
                self._fresh_until = self._clock() + max(_LEAST_SECONDS, cost / LOOK_SHARE)
            return self._looked
        finally:
            self._lock.release()

    def renew(self) -> None:
        """Let the next page that asks have a new look: a person has changed something."""
        self._fresh_until = 0.0

    def _seen(self) -> Looked:
        assert self._looked is not None
        return self._looked

    def _new_look(self) -> Looked:
        seen = self._look()
        curves = self._columns.curves()
        self.lines.keep_names({device.client_id for device in seen.devices})
        view = PageView(
            dataclasses.replace(seen, finished_rounds=[]),
            next_step(seen),
            waiting_for(seen),
            curves,
            self.lines.last(),
        )
        body = to_json(view)
        return Looked(body, hashlib.sha256(body).hexdigest()[:32])
