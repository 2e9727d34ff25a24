"""Execute the two transactions of an upload: read what it is checked against, note what was stored."""

from __future__ import annotations

import functools
import json
from typing import Any

import sqlalchemy as sa

from gkt_core.wire.protocol import is_client_id
from gkt_core.wire.shards import ShardKey
from server_app.rounds.state import RunState
from server_app.store import tables
from server_app.store.base import ClientRecord, ShardRecord, UploadView
from server_app.store.prepared import PreparedStatement, driver_cursor

# Numbers in a path may be larger than a database takes.
_INT_LIMIT = 1 << 63
_KEY = ("round_num", "client_id", "split", "index")


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
            sa.and_(shards.c.run_id == run_id, *(shards.c[name] == sa.bindparam(name) for name in _KEY)),
        )
        columns = (
            runs.c.state,
            clients.c.client_id,
            clients.c.num_examples,
            clients.c.num_validation_examples,
            clients.c.engine,
            shards.c.sha256,
            shards.c.num_samples,
            shards.c.upload_bytes,
            shards.c.blob,
        )
        self._view = PreparedStatement(
            engine, sa.select(*columns).select_from(joined).where(runs.c.run_id == run_id)
        )
        insert_shard = insert(shards).values(
            {column.name: sa.bindparam(column.name) for column in shards.c} | {"run_id": run_id}
        )
        changed = {column.name: insert_shard.excluded[column.name] for column in shards.c}
        keys = [column.name for column in shards.primary_key]
        self._add_shard = PreparedStatement(
            engine,
            insert_shard.on_conflict_do_update(
                index_elements=keys, set_={name: new for name, new in changed.items() if name not in keys}
            ),
        )
        insert_traffic = insert(traffic).values(
            {column.name: sa.bindparam(column.name) for column in traffic.c} | {"run_id": run_id}
        )
        self._count = PreparedStatement(
            engine,
            insert_traffic.on_conflict_do_update(
                index_elements=["run_id", "kind", "round_num"],
                set_={"num_bytes": traffic.c.num_bytes + insert_traffic.excluded.num_bytes},
            ),
        )

    def view(self, key: ShardKey) -> UploadView:
        """What an upload is checked against; a key that nothing can be stored under finds nothing."""
        values = {
            "round_num": key.round_num if key.round_num < _INT_LIMIT else -1,
            "client_id": key.client_id if is_client_id(key.client_id) else "",
            "split": key.split,
            "index": key.index if key.index < _INT_LIMIT else -1,
        }
        with driver_cursor(self._engine, writes=False) as cursor:
            self._view.execute(cursor, values)
            row = cursor.fetchone()
        state = _state(row[0])
        client = None if row[1] is None else ClientRecord(*row[1:5])
        known = None if row[5] is None else ShardRecord(key, *row[5:9])
        return UploadView(state, client, known)

    def add_shard(self, shard: ShardRecord, traffic: str | None) -> None:
        """Remember a shard, and count its bytes as this kind of traffic."""
        values = {
            **shard.key.metadata(),
            "sha256": shard.sha256,
            "num_samples": shard.num_samples,
            "upload_bytes": shard.upload_bytes,
            "blob": shard.blob,
        }
        counted = {"kind": traffic, "round_num": shard.key.round_num, "num_bytes": shard.upload_bytes}
        with driver_cursor(self._engine, writes=True) as cursor:
            self._add_shard.execute(cursor, values)
            if traffic is not None:
                self._count.execute(cursor, counted)

    def count_traffic(self, kind: str, round_num: int, num_bytes: int) -> None:
        """Add to the bytes of one kind in one round."""
        with driver_cursor(self._engine, writes=True) as cursor:
            self._count.execute(cursor, {"kind": kind, "round_num": round_num, "num_bytes": num_bytes})


@functools.lru_cache(maxsize=8)
def _state(text: str) -> RunState:
    # The same for all uploads between two events of the run.
    return RunState.from_dict(json.loads(text))
