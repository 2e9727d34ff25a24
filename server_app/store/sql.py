"""Keep the run's state in a database, SQLite or PostgreSQL, through SQLAlchemy."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gkt_core.errors import DamagedStorageError, InputError, RoundError
from gkt_core.wire.protocol import RoundReport, TrainerProgress, from_json, to_json
from gkt_core.wire.shards import ShardKey
from server_app.remembered import Remembered, Revision
from server_app.rounds.history import stamped
from server_app.rounds.machine import advance
from server_app.rounds.state import Event, Forgotten, Grown, Joined, Phase, Reported, RunState, Trained
from server_app.storage_errors import is_passing, named
from server_app.store import tables
from server_app.store.credentials import CredentialStore
from server_app.store.engine import compact, database_time, migrate, open_engine, shown, write_transaction
from server_app.store.identities import erase_rows, forget_open_parts, known_identities, say_twin
from server_app.store.joining import Identity, check_joining
from server_app.store.past import Past
from server_app.store.prepared import PreparedStatement, driver_cursor
from server_app.store.records import ClientRecord, RoundRecord, ShardRecord, UploadView
from server_app.store.uploads import CONTENT, KEY, TOTAL, UploadStatements, read_state

_logger = logging.getLogger("gkt.server")


class RunStore:
    """State of one run, shared by processes. Every method is one transaction.

    Attributes:
        run_id: Which run.
        credentials: Who may speak for its devices.
        past: What lies behind it.

    Args:
        database: Path of an SQLite file, or a URL.
        run_id: Which of its runs.
    """

    def __init__(self, database: Path | str, run_id: str) -> None:
        self._engine = open_engine(database)
        self._dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        self.run_id = run_id
        self._mine = tables.runs.c.run_id == run_id
        self._uploads = UploadStatements(self._engine, run_id, self._dialect.insert)
        self.past = Past(self._engine, run_id)
        self._revision = Revision(self._engine)
        self.credentials = CredentialStore(self._engine, run_id, self._dialect.insert, self._revision)
        self._select_state = PreparedStatement(self._engine, sa.select(tables.runs.c.state).where(self._mine))
        self._last_state: tuple[str, RunState] | None = None
        self._state = Remembered(self._revision, lambda _: self.read_state())

    @classmethod
    def create(cls, database: Path | str, run_id: str, config: dict[str, Any], state: RunState) -> RunStore:
        """Make the tables, if there are none, and a run; an existing run of this id is left as it is.

        Raises:
            InputError: The database cannot be reached or used.
        """
        store = cls(database, run_id)
        row = {
            "run_id": run_id,
            "config": json.dumps(config, sort_keys=True),
            "state": json.dumps(state.to_dict()),
        }
        try:
            migrate(store._engine)
            with store._write() as connection:
                connection.execute(store._insert(tables.runs).values(row).on_conflict_do_nothing())
        except sa.exc.DatabaseError as error:
            store.close()
            if is_passing(error):
                raise named(error) from error
            raise InputError(
                f"{shown(database)} cannot be used: {error.orig}: is it there, and ours?"
            ) from error
        return store

    @classmethod
    def open(cls, database: Path | str, run_id: str | None = None) -> RunStore | None:
        """Open a run of an existing database, its only one by default; None if there is none.

        Raises:
            InputError: This is no database of a run, or it is damaged, or does not answer.
        """
        if isinstance(database, Path) and not database.is_file():
            return None
        engine = open_engine(database)
        query = sa.select(tables.runs.c.run_id)
        if run_id is not None:
            query = query.where(tables.runs.c.run_id == run_id)
        try:
            migrate(engine)
            with engine.begin() as connection:
                known_id = connection.execute(query).scalar()
        except DamagedStorageError as error:
            raise InputError(
                f"{shown(database)} cannot be read: it is damaged, or no database of a run: restore a "
                "backup of it, or begin a new run in another --data-dir"
            ) from error
        except sa.exc.DatabaseError as error:
            if is_passing(error):
                raise named(error) from error
            raise InputError(
                f"{shown(database)} cannot be read: {error.orig}: begin a new run in another --data-dir"
            ) from error
        finally:
            engine.dispose()
        return None if known_id is None else cls(database, known_id)

    def close(self) -> None:
        """Close the database connections of this process."""
        self._revision.close()
        self._engine.dispose()

    def _write(self) -> Any:
        return write_transaction(self._engine)

    def _rows(self, table: sa.Table, **where: Any) -> Sequence[Any]:
        wanted = {"run_id": self.run_id, **where}
        query = sa.select(table).where(*(table.c[name] == value for name, value in wanted.items()))
        with self._engine.begin() as connection:
            return connection.execute(query).all()

    def _insert(self, table: sa.Table) -> Any:
        # Both know ON CONFLICT, each in its own class.
        return self._dialect.insert(table)

    def _run_column(self, column: sa.Column[Any]) -> Any:
        with self._engine.begin() as connection:
            return connection.execute(sa.select(column).where(self._mine)).scalar_one()

    def _update(self, connection: sa.Connection, **values: Any) -> None:
        connection.execute(sa.update(tables.runs).where(self._mine).values(values))

    def config(self) -> dict[str, Any]:
        """The run's hyper-parameters."""
        return dict(json.loads(self._run_column(tables.runs.c.config)))

    def state(self) -> RunState:
        """Where the run stands; read only where something in the database has changed."""
        state = self._state.get("")
        assert state is not None
        return state

    def read_state(self) -> RunState:
        """Where the run stands, read from the database; the very object of before where it is the same."""
        with driver_cursor(self._engine, writes=False) as cursor:
            self._select_state.execute(cursor, {})
            (text,) = cursor.fetchone()
        last = self._last_state
        if last is None or last[0] != text:
            self._last_state = last = text, read_state(text)
        return last[1]

    def apply(self, event: Event, lease_owner: str | None = None) -> RunState:
        """Advance the state machine by one event, noting when rounds open, close and end.

        Raises:
            RoundError: The event is refused, or somebody else than ``lease_owner`` holds the lease.
        """
        with self._write() as connection:
            if lease_owner is not None:
                self._check_lease(connection, event, lease_owner)
            return self._advance(connection, event)[1]

    def _check_lease(self, connection: sa.Connection, event: Event, owner: str) -> None:
        query = sa.select(tables.runs.c.lease_owner).where(self._mine)
        holder = connection.execute(query.with_for_update()).scalar_one()
        if holder != owner:
            raise RoundError(f"{event} comes from {owner}, but {holder} trains this run now")

    def _advance(self, connection: sa.Connection, event: Event) -> tuple[RunState, RunState]:
        now = time.time()
        row = sa.select(tables.runs.c.state).where(self._mine).with_for_update()
        before = read_state(connection.execute(row).scalar_one())
        after = advance(before, event)
        if after == before:
            return before, after
        after = dataclasses.replace(after, history=stamped(after.history, now))
        self._update(connection, state=json.dumps(after.to_dict()))
        opened = after.round_num != before.round_num
        if opened:
            self._note_round(connection, after.round_num, opened_at=now)
        if after.phase is Phase.READY and (opened or before.phase is Phase.COLLECTING):
            self._note_round(connection, after.round_num, collected_at=now)
        if isinstance(event, Trained):
            self._note_round(connection, before.round_num, trained_at=now)
        return before, after

    def grow(self, event: Grown, config: dict[str, Any]) -> RunState:
        """Let the run grow, and keep its new hyper-parameters, or neither; RoundError if refused."""
        with self._write() as connection:
            after = self._advance(connection, event)[1]
            self._update(connection, config=json.dumps(config, sort_keys=True))
        return after

    def _note_round(self, connection: sa.Connection, round_num: int, **values: Any) -> None:
        self._upsert(connection, tables.rounds, {"round_num": round_num}, values)

    def _upsert(
        self, connection: sa.Connection, table: sa.Table, key: dict[str, Any], values: dict[str, Any]
    ) -> None:
        insert = self._insert(table).values({"run_id": self.run_id, **key, **values})
        connection.execute(insert.on_conflict_do_update(index_elements=["run_id", *key], set_=values))

    def join(
        self,
        client: ClientRecord,
        identity: Identity | None = None,
        forgotten: list[str] | None = None,
    ) -> RunState:
        """Take a device in and remember what it said, or neither; repeating it replaces what it said.

        Shards that it sent of other samples than it has now are forgotten, but for those of closed parts; the
        names of their blobs are added to ``forgotten``.

        Raises:
            RoundError: The run takes it in no more, or its name is another device's.
            ArtifactError: Another device has other classes.
        """
        values = dataclasses.asdict(client)
        key = {"client_id": values.pop("client_id")}
        with self._write() as connection:
            _, after = self._advance(connection, Joined(client.client_id))
            self._upsert(connection, tables.clients, key, values)
            blobs = [] if identity is None else self._identify(connection, identity)
        if forgotten is not None:
            forgotten += blobs
        return after

    def _identify(self, connection: sa.Connection, identity: Identity) -> list[str]:
        known = known_identities(connection, self.run_id)
        check_joining(identity, known)
        said = dataclasses.asdict(identity)
        key = {"client_id": said.pop("client_id")}
        said["class_names"] = json.dumps(identity.class_names)
        self._upsert(connection, tables.identities, key, said)
        say_twin(identity, known)
        if not any(identity.has_other_samples(before) for before in known):
            return []
        blobs = forget_open_parts(connection, self.run_id, identity.client_id)
        forgotten = {0: "", 1: "; 1 shard that it sent of those is forgotten"}.get(
            len(blobs), f"; {len(blobs)} shards that it sent of those are forgotten"
        )
        _logger.warning("%s has other samples than before%s", identity.client_id, forgotten)
        return blobs

    def clients(self) -> dict[str, ClientRecord]:
        """All devices by id."""
        # Databases sort text in many ways.
        rows = sorted(self._rows(tables.clients), key=lambda row: str(row.client_id))
        return {row.client_id: ClientRecord(*tuple(row)[1:]) for row in rows}

    def upload_view(self, key: ShardKey) -> UploadView:
        """What an upload is checked against, as it is at one moment."""
        return self._uploads.view(key)

    def add_shard(self, shard: ShardRecord, traffic: str | None = None) -> None:
        """Remember a shard, and count its bytes as this kind of traffic; repeating it replaces it."""
        self._uploads.keep_shard(shard, traffic, lambda view: None)

    def keep_shard(self, shard: ShardRecord, traffic: str, check: Callable[[UploadView], None]) -> str:
        """Remember a shard if it is awaited still, as of this very moment.

        Args:
            shard: The shard.
            traffic: The kind that its bytes are counted as.
            check: Raises what it is refused with.

        Returns:
            The blob of the shard that stood in its place; empty for none.
        """
        return self._uploads.keep_shard(shard, traffic, check)

    def forget_shard(self, shard: ShardRecord) -> None:
        """Forget a shard whose blob is lost, so that it is asked for again; not one that has replaced it."""
        with self._write() as connection:
            self._forget(connection, shard.key, tables.shards.c.blob == shard.blob)

    def forget_device(self, client_id: str) -> list[str]:
        """Forget all shards of a device; their blobs."""
        shards = tables.shards
        mine = shards.c.run_id == self.run_id, shards.c.client_id == client_id
        with self._write() as connection:
            blobs = connection.execute(sa.select(shards.c.blob).where(*mine)).scalars().all()
            connection.execute(sa.delete(shards).where(*mine))
        return list(blobs)

    def erase(self, client_id: str) -> list[str]:
        """Erase a device, from the state too; blobs of its shards. RoundError while it has a part in it."""
        with self._write() as connection:
            self._advance(connection, Forgotten(client_id))
            return erase_rows(connection, self.run_id, client_id)

    def compact(self) -> bool:
        """Write the database anew, without what was deleted; whether that could be done."""
        return compact(self._engine)

    def _forget(self, connection: sa.Connection, key: ShardKey, *only: sa.ColumnElement[bool]) -> None:
        shards = tables.shards
        where = [shards.c[name] == value for name, value in key.metadata().items()]
        connection.execute(sa.delete(shards).where(shards.c.run_id == self.run_id, *where, *only))

    def lose_shards(self, keys: Sequence[ShardKey], event: Event, lease_owner: str) -> RunState:
        """Forget damaged shards and advance by what follows from it, or neither; RoundError if refused."""
        with self._write() as connection:
            self._check_lease(connection, event, lease_owner)
            for key in keys:
                self._forget(connection, key)
            return self._advance(connection, event)[1]

    def shards(self, round_num: int, client_id: str | None = None) -> list[ShardRecord]:
        """Shards of a round, of one device or of all, in canonical order."""
        where = {"round_num": round_num} | ({} if client_id is None else {"client_id": client_id})
        rows = [row._mapping for row in self._rows(tables.shards, **where)]
        shards = [
            ShardRecord(ShardKey(**{name: row[name] for name in KEY}), *(row[name] for name in CONTENT))
            for row in rows
        ]
        return sorted(shards, key=lambda each: (each.key.client_id, each.key.split, each.key.index))

    def close_part(
        self, client_id: str, round_num: int, report: RoundReport, upload_round: int = 0
    ) -> RunState:
        """Close a device's part of a round and remember how it went, or neither; RoundError if refused."""
        key = {"round_num": round_num, "client_id": client_id}
        with self._write() as connection:
            before, after = self._advance(connection, Reported(client_id, round_num, upload_round))
            if after != before:
                self._upsert(connection, tables.reports, key, {"report": to_json(report).decode()})
        return after

    def reports(self, round_num: int) -> dict[str, RoundReport]:
        """Reports of a round by device."""
        rows = self._rows(tables.reports, round_num=round_num)
        reports = {row.client_id: from_json(RoundReport, row.report.encode()) for row in rows}
        return dict(sorted(reports.items()))

    def add_round_metrics(self, round_num: int, metrics: dict[str, float]) -> None:
        """Remember what the trainer measured in a round."""
        with self._write() as connection:
            self._note_round(connection, round_num, metrics=json.dumps(metrics))

    def rounds(self) -> list[RoundRecord]:
        """All rounds that were opened, oldest first."""
        rows = sorted(self._rows(tables.rounds), key=lambda row: int(row.round_num))
        return [
            RoundRecord(num, opened, collected, trained, json.loads(metrics))
            for _, num, opened, collected, trained, metrics in rows
        ]

    def count_traffic(self, kind: str, round_num: int, num_bytes: int) -> None:
        """Add to the bytes of one kind (``upload/shards`` and so on) in one round."""
        self._uploads.count_traffic(kind, round_num, num_bytes)

    def traffic(self) -> dict[tuple[str, int], int]:
        """Bytes by kind and round."""
        rows = self._rows(tables.traffic)
        return {(row.kind, row.round_num): row.num_bytes for row in rows if row.round_num != TOTAL}

    def take_lease(self, owner: str, seconds: float) -> bool:
        """Take or renew the right to train, if nobody else has it, and say whether it is the owner's now."""
        runs = tables.runs
        with self._write() as connection:
            now = database_time(connection)
            free = sa.or_(runs.c.lease_owner.in_(("", owner)), runs.c.lease_until < now)
            update = sa.update(runs).where(self._mine, free)
            taken = connection.execute(update.values(lease_owner=owner, lease_until=now + seconds))
        return bool(taken.rowcount == 1)

    def release_lease(self, owner: str) -> None:
        """Give the right to train back, if it is the owner's."""
        held = sa.update(tables.runs).where(self._mine, tables.runs.c.lease_owner == owner)
        with self._write() as connection:
            connection.execute(held.values(lease_owner="", lease_until=0.0))

    def report_progress(self, progress: TrainerProgress | None) -> None:
        """Say how far the trainer is; also its sign of life."""
        text = "" if progress is None else to_json(progress).decode()
        with self._write() as connection:
            self._update(connection, progress=text, trainer_seen_at=time.time())

    def progress(self) -> tuple[TrainerProgress | None, float]:
        """How far the trainer is, and when it last said so (seconds since the epoch)."""
        (row,) = self._rows(tables.runs)
        progress = from_json(TrainerProgress, row.progress.encode()) if row.progress else None
        return progress, row.trainer_seen_at
