"""Remember what was read of a database until something in it changes: asking that costs next to nothing."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import sqlalchemy as sa

ValueT = TypeVar("ValueT")
Mark = tuple[int, int]


class Revision:
    """Marks the content of an SQLite database: whatever changes it, in whatever process, changes the mark.

    SQLite counts for a connection what others commit (https://www.sqlite.org/pragma.html#pragma_data_version),
    so this is one that nothing is ever written with.

    Args:
        engine: Of the database. PostgreSQL counts nothing of the kind: there is no mark then.
    """

    def __init__(self, engine: sa.Engine) -> None:
        path = engine.url.database if engine.dialect.name == "sqlite" else None
        self._uri = f"{Path(path).absolute().as_uri()}?mode=rw" if path else ""
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        # Each connection counts by itself.
        self._num_connections = 0

    def mark(self) -> Mark | None:
        """The mark of all that was committed before this call; None where nobody can tell at once."""
        if not self._uri:
            return None
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = sqlite3.connect(
                        self._uri, uri=True, timeout=0.0, isolation_level=None, check_same_thread=False
                    )
                    self._num_connections += 1
                (count,) = self._connection.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error:
                # What is wrong is said by whoever reads.
                self._close()
                return None
            return self._num_connections, int(count)

    def close(self) -> None:
        """Close the connection; the next mark is another one."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


class Remembered(Generic[ValueT]):
    """Values that were read, each under its name, as long as the mark is the same.

    Args:
        revision: Of the database.
        read: Reads one; None for what there is not, which is not remembered: anybody may ask for it.
    """

    def __init__(self, revision: Revision, read: Callable[[str], ValueT | None]) -> None:
        self._revision, self._read = revision, read
        self._lock = threading.Lock()
        self._mark: Mark | None = None
        self._values: dict[str, ValueT] = {}

    def get(self, name: str) -> ValueT | None:
        """A value as it is, with all that was committed before this call."""
        mark = self._revision.mark()
        with self._lock:
            if mark is not None and mark == self._mark and name in self._values:
                return self._values[name]
        value = self._read(name)
        if mark is not None and value is not None:
            with self._lock:
                if mark != self._mark:
                    self._mark, self._values = mark, {}
                # Read after the mark was taken: it may be newer than that, and then is asked for once more.
                self._values[name] = value
        return value
