"""Copy the rows of a run from one database into another, of either kind, as they are at one moment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gkt_core.errors import InputError
from server_app.storage_errors import is_passing, named
from server_app.store import tables
from server_app.store.engine import migrate, open_engine, shown, write_transaction

_ROWS_AT_ONCE = 1000
# What the trainer of before says of itself; another one begins with the copy.
_NO_TRAINER: dict[str, Any] = {"progress": "", "trainer_seen_at": 0.0, "lease_owner": "", "lease_until": 0.0}


def copy_run(source: Path | str, target: Path | str, run_id: str) -> None:
    """Copy a run, all of it or nothing, while others go on with the original.

    Args:
        source: Path of an SQLite file, or a URL; its tables are the newest ones.
        target: The same; tables are made where there are none.
        run_id: Which run.

    Raises:
        InputError: The target cannot be used, or holds this run already.
        StorageUnavailableError: One of the two does not answer.
    """
    reads, writes = open_engine(source), open_engine(target)
    try:
        migrate(writes)
        with _at_one_moment(reads) as reading, write_transaction(writes) as writing:
            known = sa.select(tables.runs.c.run_id).where(tables.runs.c.run_id == run_id)
            if writing.execute(known).first() is not None:
                raise InputError(
                    f"{shown(target)} holds {run_id} already: nothing was restored; name another database, "
                    "or drop that one first"
                )
            for table in tables.metadata.sorted_tables:
                for rows in _partitions(reading, table, run_id):
                    writing.execute(sa.insert(table), rows)
    except sa.exc.DatabaseError as error:
        if is_passing(error):
            raise named(error) from error
        raise InputError(f"{shown(target)} cannot be used: {error.orig}: is it there, and ours?") from error
    finally:
        reads.dispose()
        writes.dispose()


def drop_run(database: Path | str, run_id: str) -> None:
    """Take all rows of a run out of a database again."""
    engine = open_engine(database)
    try:
        with write_transaction(engine) as connection:
            for table in tables.metadata.sorted_tables:
                connection.execute(sa.delete(table).where(table.c.run_id == run_id))
    finally:
        engine.dispose()


def _at_one_moment(engine: sa.Engine) -> contextlib.AbstractContextManager[sa.Connection]:
    """Begin a transaction that sees what was there with its first question, and nothing that comes later."""
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    return engine.begin()


def _partitions(connection: sa.Connection, table: sa.Table, run_id: str) -> Iterator[list[dict[str, Any]]]:
    query = sa.select(table).where(table.c.run_id == run_id)
    options = {"stream_results": True, "yield_per": _ROWS_AT_ONCE}
    changed = _NO_TRAINER if table is tables.runs else {}
    for rows in connection.execute(query, execution_options=options).mappings().partitions():
        yield [{**row, **changed} for row in rows]
