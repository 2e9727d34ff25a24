"""Execute the two transactions of an upload: read what it is checked against, note what was stored."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from gkt_core.wire.protocol import is_client_id
from gkt_core.wire.shards import ShardKey
from server_app.rounds.state import RunState
from server_app.storage_errors import damaged
from server_app.store import tables
from server_app.store.prepared import PreparedStatement, driver_cursor
from server_app.store.records import ClientRecord, ShardRecord, UploadView

# Numbers in a path may be larger than a database takes.
_INT_LIMIT = 1 << 63
# In place of a round: the bytes of all rounds.
TOTAL = -1
# Columns of a shard's key, and those of what else is known of it.
KEY = ("round_num", "client_id", "split", "index")
CONTENT = ("sha256", "num_samples", "upload_bytes", "blob")


class UploadStatements:
    """Prepared statements of the uploads of one run.

    Args:
        engine: The database.
        run_id: Which run.
        insert: The ``insert`` of its dialect, which knows ON CONFLICT.
    """

    def __init__(self, engine: sa.Engine, run_id: str, insert: Any) -> None:
        self._engine = engine
        runs, clients, shards, traffic = tables.runs, tables.clients, tables.shards, tables.traffic
        joined = runs.outerjoin(
            clients, sa.and_(clients.c.run_id == run_id, clients.c.client_id == sa.bindparam("client_id"))
        ).outerjoin(
            shards,
            sa.and_(shards.c.run_id == run_id, *(shards.c[name] == sa.bindparam(name) for name in KEY)),
        )
        columns = (runs.c.state, *list(clients.c)[1:], *(shards.c[name] for name in CONTENT))
        view = sa.select(*columns).select_from(joined).where(runs.c.run_id == run_id)
        self._view = PreparedStatement(engine, view)
        # The state stays as it is until the transaction ends; SQLite's has the database for itself.
        self._held_view = PreparedStatement(engine, view.with_for_update(read=True, of=runs))

        def upsert(table: sa.Table, changed: Callable[[Any], dict[str, Any]]) -> PreparedStatement:
            values: dict[str, Any] = {column.name: sa.bindparam(column.name) for column in table.c}
            new = insert(table).values({**values, "run_id": run_id})
            keys = list(table.primary_key)
            return PreparedStatement(
                engine, new.on_conflict_do_update(index_elements=keys, set_=changed(new.excluded))
            )

        self._add_shard = upsert(shards, lambda new: {name: new[name] for name in CONTENT})
        self._count = upsert(traffic, lambda new: {"num_bytes": traffic.c.num_bytes + new.num_bytes})

    def view(self, key: ShardKey) -> UploadView:
        """What an upload is checked against; a key that nothing can be stored under finds nothing."""
        with driver_cursor(self._engine, writes=False) as cursor:
            return self._seen(cursor, self._view, key)

    def _seen(self, cursor: Any, view: PreparedStatement, key: ShardKey) -> UploadView:
        values = {
            "round_num": key.round_num if key.round_num < _INT_LIMIT else -1,
            "client_id": key.client_id if is_client_id(key.client_id) else "",
            "split": key.split,
            "index": key.index if key.index < _INT_LIMIT else -1,
        }
        view.execute(cursor, values)
        row = cursor.fetchone()
        state = read_state(row[0])
        client = None if row[1] is None else ClientRecord(*row[1:5])
        known = None if row[5] is None else ShardRecord(key, *row[5:9])
        return UploadView(state, client, known)

    def keep_shard(self, shard: ShardRecord, traffic: str | None, check: Callable[[UploadView], None]) -> str:
        """Remember a shard unless ``check`` refuses it; the blob that it replaces, empty for none."""
        values = {**shard.key.metadata(), **{name: getattr(shard, name) for name in CONTENT}}
        with driver_cursor(self._engine, writes=True) as cursor:
            view = self._seen(cursor, self._held_view, shard.key)
            check(view)
            self._add_shard.execute(cursor, values)
            if traffic is not None:
                self._counted(cursor, traffic, shard.key.round_num, shard.upload_bytes)
        return "" if view.known is None else view.known.blob

    def count_traffic(self, kind: str, round_num: int, num_bytes: int) -> None:
        """Add to the bytes of one kind in one round."""
        with driver_cursor(self._engine, writes=True) as cursor:
            self._counted(cursor, kind, round_num, num_bytes)

    def _counted(self, cursor: Any, kind: str, round_num: int, num_bytes: int) -> None:
        for place in (round_num, TOTAL):
            self._count.execute(cursor, {"kind": kind, "round_num": place, "num_bytes": num_bytes})


@functools.lru_cache(maxsize=8)
def read_state(text: str) -> RunState:
    """Read a state as it is stored: the same for all that ask between two events of the run.

    Raises:
        DamagedStorageError: It is none.
    """
    try:
        return RunState.from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(error) from error
