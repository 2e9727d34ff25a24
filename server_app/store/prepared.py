"""Compose statements once and let the driver execute them: SQLAlchemy's part takes longer than SQLite's.

Only what every upload executes is worth it; values must be text or numbers, as drivers take them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from server_app.storage_errors import damaged, is_damage


class PreparedStatement:
    """A statement in a database's own words, with named values.

    Args:
        engine: Of the database in whose words it is composed.
        statement: Built with ``sa.bindparam`` where values come later.
    """

    def __init__(self, engine: sa.Engine, statement: Any) -> None:
        compiled = statement.compile(dialect=engine.dialect)
        self._text = str(compiled)
        self._fixed: dict[str, Any] = dict(compiled.params)
        self._order: list[str] | None = compiled.positiontup

    def execute(self, cursor: Any, values: Mapping[str, Any]) -> None:
        """Execute with these values."""
        merged = {**self._fixed, **values}
        cursor.execute(self._text, merged if self._order is None else [merged[name] for name in self._order])


@contextlib.contextmanager
def driver_cursor(engine: sa.Engine, *, writes: bool) -> Iterator[Any]:
    """A transaction of the driver's own: committed when the block ends well, and taken back when not.

    Args:
        engine: The database.
        writes: Whether it may write.

    Raises:
        sqlalchemy.exc.OperationalError: As SQLAlchemy's own transactions do.
        DamagedStorageError: Likewise.
    """
    connection: Any = None
    dbapi: Any = engine.dialect.loaded_dbapi
    try:
        # The driver's own errors, too, where no connection can be made.
        connection = engine.raw_connection()
        cursor = connection.cursor()
        # SQLite's driver begins nothing by itself (engine.py), and a single read needs no transaction.
        if writes and engine.dialect.name == "sqlite":
            cursor.execute("BEGIN IMMEDIATE")
        yield cursor
        connection.commit()
    except dbapi.DatabaseError as error:
        if is_damage(error):
            raise damaged(error) from error
        if not isinstance(error, dbapi.OperationalError):
            raise
        raise sa.exc.OperationalError(None, None, error) from error
    finally:
        if connection is not None:
            # Back to the pool, which takes back what was not committed.
            connection.close()
