"""Bound what anybody waits for a PostgreSQL that hangs, so that it does not take all of a server's threads.

A database whose processes are stopped, or whose network is gone, answers nothing and ends no connection: its
own limits do not help, as it is the database that looks at them. So the limit is the client's. One that did
not answer a moment ago is asked by one caller at a time; all others learn at once that it does not answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

ResultT = TypeVar("ResultT")

# Of a statement, and of a new connection. The database's own limits end one that it still works on before.
ANSWER_SECONDS = 5.0
_STATEMENT_MS, _LOCK_MS, _IDLE_MS = 4000, 3000, 30_000
# A web server has 64 threads: most of them are free for what needs no database.
_MOST_CONNECTIONS = 24
# As long all connections were in use and none came back: it is as good as silent.
_POOL_SECONDS = 0.5
_PROBE_SECONDS = 1.0


class Silence:
    """Whether a database has stopped answering; shared by all connections of an engine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_silent, self._probe_at = False, 0.0

    def note(self, is_silent: bool) -> None:
        """Note how the last call went."""
        with self._lock:
            if is_silent:
                self._probe_at = time.monotonic() + _PROBE_SECONDS
            self._is_silent = is_silent

    def check(self) -> None:
        """Refuse to wait for a silent database; now and then, let one caller find out.

        Raises:
            sqlalchemy.exc.OperationalError: It is silent.
        """
        with self._lock:
            if not self._is_silent:
                return
            now = time.monotonic()
            if now >= self._probe_at:
                # The next one when this one has ended, at the latest.
                self._probe_at = now + ANSWER_SECONDS
                return
        raise sa.exc.OperationalError(None, None, TimeoutError("the database did not answer a moment ago"))


def bounded_postgresql(url: sa.URL) -> sa.Engine:
    """Make the engine of a PostgreSQL database for which nobody waits for long.

    Raises:
        ModuleNotFoundError: The driver is not installed.
    """
    import psycopg  # noqa: PLC0415 - of an extra, and not needed for SQLite

    silence = Silence()

    class Pool(QueuePool):
        def connect(self) -> Any:
            silence.check()
            try:
                return super().connect()
            except sa.exc.TimeoutError:
                silence.note(True)
                raise

    class Connection(psycopg.Connection[Any]):
        def wait(self, gen: Any, *arguments: Any, **settings: Any) -> Any:
            try:
                result = super().wait(_within(gen, ANSWER_SECONDS), *arguments, **settings)
            except _Unanswered:
                # What it answers later would be taken for the answer to something else.
                self.pgconn.finish()
                silence.note(True)
                raise psycopg.OperationalError(f"no answer within {ANSWER_SECONDS:g} s") from None
            silence.note(False)
            return result

    engine = sa.create_engine(
        url,
        poolclass=Pool,
        pool_size=_MOST_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        # A database that was restarted has closed the connections of the pool.
        pool_pre_ping=True,
        connect_args={"connect_timeout": int(ANSWER_SECONDS)},
    )

    @sa.event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: list[Any], settings: dict[str, Any]) -> Any:
        try:
            return Connection.connect(*arguments, **settings)
        except psycopg.OperationalError:
            silence.note(True)
            raise

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        limits = {
            "statement_timeout": _STATEMENT_MS,
            "lock_timeout": _LOCK_MS,
            "idle_in_transaction_session_timeout": _IDLE_MS,
        }
        with connection.cursor() as cursor:
            for name, milliseconds in limits.items():
                cursor.execute(f"SET {name} = {milliseconds}")
        connection.commit()

    return engine


class _Unanswered(Exception):
    """Raised within a call that has taken too long."""


def _within(generator: Generator[Any, Any, ResultT], seconds: float) -> Generator[Any, Any, ResultT]:
    """Go through a generator of psycopg's, resumed ten times a second, until it has taken too long."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(generator)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                generator.close()
                raise _Unanswered
            wanted = generator.send(ready)
    except StopIteration as end:
        result: ResultT = end.value
        return result
