"""Remember the last lines of the log, for the page of a run."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Set

from server_app.logs.erasing import name_pattern
from server_app.logs.formats import PLAIN, event_of, formatter
from server_app.logs.setup import REQUESTS, TRAINER

# Fields of events that hold a device's name, or several.
_NAMING = ("client_id", "devices", "late")
_MOST_LINES, _LONGEST_LINE = 40, 400


class RecentLines(logging.Handler):
    """The last lines that a person at the terminal would see as well: no request that was answered."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(formatter(PLAIN))
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._names: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is remembered: what others log, requests and the trainer if they warn."""
        is_ours = record.name.startswith("gkt") and record.name not in (REQUESTS, TRAINER)
        # Refusals are the audit log's, and any stranger can send thousands of them.
        return record.name != REQUESTS and record.levelno >= (logging.INFO if is_ours else logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a record, without its traceback."""
        self._lines.append(self.format(record).partition("\n")[0][:_LONGEST_LINE])
        _, fields = event_of(record)
        for field in _NAMING:
            named = fields.get(field)
            # Some events count devices under the same word.
            if isinstance(named, str | list):
                self._names.update([named] if isinstance(named, str) else map(str, named))

    def last(self) -> list[str]:
        """The lines, oldest first."""
        with self._held():
            return list(self._lines)

    def keep_names(self, known: Set[str]) -> None:
        """Take names of devices that a run knows no more out of the lines, as they are taken out of files."""
        with self._held():
            gone = self._names - known
            self._names = set(known)
            for name in gone:
                line_has = name_pattern(name)
                changed = [line_has.sub(lambda stood: "*" * len(stood[0]), line) for line in self._lines]
                self._lines = deque(changed, _MOST_LINES)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()
