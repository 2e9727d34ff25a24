"""Open and migrate databases: SQLite in WAL mode from a path, PostgreSQL from a URL."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gkt_core.errors import ConfigError, MissingExtraError
from server_app.database_waits import bounded_postgresql
from server_app.storage_errors import damaged, is_damage

# The newest file in migrations/versions; a database that has it needs no look at the others.
HEAD_REVISION = "0006"
# How long one process waits for another's transaction; shorter than devices wait for an answer.
BUSY_SECONDS = 15.0
_KEPT_CONNECTIONS = 16
_MIGRATION_LOCK = 0x676B74


def open_engine(database: Path | str) -> sa.Engine:
    """Make the engine of a database; it connects with its first transaction.

    Args:
        database: Path of an SQLite file, or a URL such as ``postgresql://user:password@host/name``.

    Raises:
        ConfigError: The URL cannot be used.
        MissingExtraError: Its driver is not installed.
    """
    if isinstance(database, Path):
        return _open_sqlite(database)
    try:
        url = sa.make_url(database)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() != "postgresql":
            raise ConfigError(
                f"database URL is {url.drivername}://..., expected postgresql://user:password@host/name, "
                "or none for SQLite in the run's folder"
            )
        return _naming_damage(bounded_postgresql(url))
    except sa.exc.ArgumentError as error:
        raise ConfigError(
            f"database URL cannot be read: {error}: expected postgresql://user:password@host/name"
        ) from error
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_module(str(error.name), "server") from error


def _open_sqlite(path: Path) -> sa.Engine:
    # A connection for every thread that wants one: they are files here, and the threads are bounded. To open
    # one takes longer than what is asked of it, so as many are kept as work at once in a burst.
    engine = sa.create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": BUSY_SECONDS},
        pool_size=_KEPT_CONNECTIONS,
        max_overflow=-1,
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # The driver's own transaction handling would begin a write too late to see a consistent state.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("gkt_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return _naming_damage(engine)


def _naming_damage(engine: sa.Engine) -> sa.Engine:
    @sa.event.listens_for(engine, "handle_error")
    def _name(context: sa.engine.ExceptionContext) -> None:
        if is_damage(context.original_exception):
            raise damaged(context.original_exception) from context.original_exception

    return engine


def write_transaction(engine: sa.Engine) -> Any:
    """A transaction that may write: alone from its beginning in SQLite, row by row in PostgreSQL."""
    return engine.execution_options(gkt_writes=True).begin()


def compact(engine: sa.Engine) -> bool:
    """Write an SQLite database anew, so that no page holds what was deleted; whether that was done.

    PostgreSQL does it by itself, sooner or later.
    """
    if engine.dialect.name == "postgresql":
        return False
    connection = engine.raw_connection()
    try:
        assert connection.driver_connection is not None
        connection.driver_connection.execute("VACUUM")
        # What stood in the log until now was written with the pages of before.
        (is_busy, *_) = connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError:
        # Somebody writes, or reads for long.
        return False
    finally:
        connection.close()
    return not is_busy


def migrate(engine: sa.Engine) -> None:
    """Bring an empty or older database to the newest tables; several processes may try at once."""
    with engine.begin() as connection:
        if revision_of(connection) == HEAD_REVISION:
            return
    with write_transaction(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        if revision_of(connection) == HEAD_REVISION:
            return
        # Slow to import, and needed once a run.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def revision_of(connection: sa.Connection) -> str | None:
    """Name the newest migration that a database has had; None for one without our tables."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return None if revision is None else str(revision)


def database_time(connection: sa.Connection) -> float:
    """Tell the time in seconds since the epoch: machines that share a database need not agree on it."""
    if connection.dialect.name == "postgresql":
        query = sa.text("SELECT extract(epoch FROM clock_timestamp())")
        return float(connection.execute(query).scalar_one())
    return time.time()


def shown(database: Path | str) -> str:
    """Give the place of a database, without its password."""
    return str(database) if isinstance(database, Path) else sa.make_url(database).render_as_string()
