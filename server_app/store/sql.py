"""The run's state in a database through SQLAlchemy: SQLite in WAL mode, any other by URL."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from gkt_core.errors import InputError
from gkt_core.protocol import RoundReport, TrainerProgress, from_json, to_json
from gkt_core.shards import ShardKey
from server_app.rounds import advance
from server_app.run_state import Event, Joined, Phase, Reported, RunState
from server_app.store.base import ClientRecord, RoundRecord, ShardRecord

_metadata = sa.MetaData()

_runs = sa.Table(
    "runs",
    _metadata,
    sa.Column("run_id", sa.String, primary_key=True),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("progress", sa.Text, nullable=False, default=""),
    sa.Column("trainer_seen_at", sa.Float, nullable=False, default=0.0),
)
_clients = sa.Table(
    "clients",
    _metadata,
    sa.Column("run_id", sa.String, primary_key=True),
    sa.Column("client_id", sa.String, primary_key=True),
    sa.Column("num_examples", sa.Integer, nullable=False),
    sa.Column("num_validation_examples", sa.Integer, nullable=False),
    sa.Column("engine", sa.String, nullable=False),
)
_shards = sa.Table(
    "shards",
    _metadata,
    sa.Column("run_id", sa.String, primary_key=True),
    sa.Column("round_num", sa.Integer, primary_key=True),
    sa.Column("client_id", sa.String, primary_key=True),
    sa.Column("split", sa.String, primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("num_samples", sa.Integer, nullable=False),
    sa.Column("upload_bytes", sa.Integer, nullable=False),
    sa.Column("blob", sa.String, nullable=False),
)
_reports = sa.Table(
    "reports",
    _metadata,
    sa.Column("run_id", sa.String, primary_key=True),
    sa.Column("round_num", sa.Integer, primary_key=True),
    sa.Column("client_id", sa.String, primary_key=True),
    sa.Column("report", sa.Text, nullable=False),
)
_rounds = sa.Table(
    "rounds",
    _metadata,
    sa.Column("run_id", sa.String, primary_key=True),
    sa.Column("round_num", sa.Integer, primary_key=True),
    sa.Column("opened_at", sa.Float, nullable=False, default=0.0),
    sa.Column("collected_at", sa.Float, nullable=False, default=0.0),
    sa.Column("trained_at", sa.Float, nullable=False, default=0.0),
    sa.Column("metrics", sa.Text, nullable=False, default="{}"),
)
_traffic = sa.Table(
    "traffic",
    _metadata,
    sa.Column("run_id", sa.String, primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("round_num", sa.Integer, primary_key=True),
    sa.Column("num_bytes", sa.BigInteger, nullable=False, default=0),
)


def _open_engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

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

    return engine


class SqlRunStore:
    """A :class:`server_app.store.base.RunStore` in one SQLite file."""

    def __init__(self, path: Path, run_id: str) -> None:
        self._engine = _open_engine(path)
        self.run_id = run_id

    @classmethod
    def create(cls, path: Path, run_id: str, config: dict[str, Any], state: RunState) -> SqlRunStore:
        """Make the database and its one run; an existing run of this id is left as it is."""
        store = cls(path, run_id)
        _metadata.create_all(store._engine)
        row = {
            "run_id": run_id,
            "config": json.dumps(config, sort_keys=True),
            "state": json.dumps(state.to_dict()),
            "progress": "",
            "trainer_seen_at": 0.0,
        }
        with store._write() as connection:
            connection.execute(insert(_runs).values(row).on_conflict_do_nothing())
        return store

    @classmethod
    def open(cls, path: Path) -> SqlRunStore | None:
        """Open the run of an existing database; None if there is none.

        Raises:
            InputError: The file is no database of a run, or damaged.
        """
        if not path.is_file():
            return None
        engine = _open_engine(path)
        try:
            _metadata.create_all(engine)
            with engine.begin() as connection:
                run_id = connection.execute(sa.select(_runs.c.run_id)).scalar()
        except sa.exc.DatabaseError as error:
            raise InputError(
                f"{path} cannot be read: {error.orig}: begin a new run in another --data-dir"
            ) from error
        finally:
            engine.dispose()
        return None if run_id is None else cls(path, run_id)

    def close(self) -> None:
        """Close the database connections of this process."""
        self._engine.dispose()

    def _write(self) -> Any:
        return self._engine.execution_options(gkt_writes=True).begin()

    def _run_column(self, column: sa.Column[Any]) -> Any:
        with self._engine.begin() as connection:
            return connection.execute(sa.select(column).where(_runs.c.run_id == self.run_id)).scalar_one()

    def config(self) -> dict[str, Any]:
        """The run's hyper-parameters."""
        return dict(json.loads(self._run_column(_runs.c.config)))

    def state(self) -> RunState:
        """Where the run stands."""
        return RunState.from_dict(json.loads(self._run_column(_runs.c.state)))

    def apply(self, event: Event) -> RunState:
        """Advance the state machine in one transaction, noting when rounds open, close and end."""
        with self._write() as connection:
            return self._advance(connection, event)[1]

    def _advance(self, connection: sa.Connection, event: Event) -> tuple[RunState, RunState]:
        now = time.time()
        row = sa.select(_runs.c.state).where(_runs.c.run_id == self.run_id).with_for_update()
        before = RunState.from_dict(json.loads(connection.execute(row).scalar_one()))
        after = advance(before, event)
        if after == before:
            return before, after
        connection.execute(
            sa.update(_runs).where(_runs.c.run_id == self.run_id).values(state=json.dumps(after.to_dict()))
        )
        if after.phase is Phase.COLLECTING and after.round_num != before.round_num:
            self._note_round(connection, after.round_num, opened_at=now)
        if after.phase is Phase.READY and before.phase is Phase.COLLECTING:
            self._note_round(connection, after.round_num, collected_at=now)
        if before.phase is Phase.TRAINING and after.phase in (Phase.COLLECTING, Phase.FINISHED):
            self._note_round(connection, before.round_num, trained_at=now)
        return before, after

    def _note_round(self, connection: sa.Connection, round_num: int, **values: Any) -> None:
        defaults = {"opened_at": 0.0, "collected_at": 0.0, "trained_at": 0.0, "metrics": "{}"}
        row = {"run_id": self.run_id, "round_num": round_num, **defaults, **values}
        connection.execute(
            insert(_rounds)
            .values(row)
            .on_conflict_do_update(index_elements=["run_id", "round_num"], set_=values)
        )

    def _upsert(self, connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
        keys = [column.name for column in table.primary_key]
        values = {name: value for name, value in row.items() if name not in keys}
        connection.execute(insert(table).values(row).on_conflict_do_update(index_elements=keys, set_=values))

    def join(self, client: ClientRecord) -> RunState:
        """Take a device in and remember what it said, or neither."""
        row = {
            "run_id": self.run_id,
            "client_id": client.client_id,
            "num_examples": client.num_examples,
            "num_validation_examples": client.num_validation_examples,
            "engine": client.engine,
        }
        with self._write() as connection:
            _, after = self._advance(connection, Joined(client.client_id))
            self._upsert(connection, _clients, row)
        return after

    def clients(self) -> dict[str, ClientRecord]:
        """All devices by id."""
        query = sa.select(_clients).where(_clients.c.run_id == self.run_id).order_by(_clients.c.client_id)
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return {
            row.client_id: ClientRecord(
                row.client_id, row.num_examples, row.num_validation_examples, row.engine
            )
            for row in rows
        }

    def add_shard(self, shard: ShardRecord) -> None:
        """Remember a shard."""
        row = {
            "run_id": self.run_id,
            **shard.key.metadata(),
            "sha256": shard.sha256,
            "num_samples": shard.num_samples,
            "upload_bytes": shard.upload_bytes,
            "blob": shard.blob,
        }
        with self._write() as connection:
            self._upsert(connection, _shards, row)

    def shards(self, round_num: int, client_id: str | None = None) -> list[ShardRecord]:
        """Shards of a round in canonical order."""
        query = sa.select(_shards).where(_shards.c.run_id == self.run_id, _shards.c.round_num == round_num)
        if client_id is not None:
            query = query.where(_shards.c.client_id == client_id)
        query = query.order_by(_shards.c.client_id, _shards.c.split, _shards.c.index)
        with self._engine.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            ShardRecord(
                ShardKey(row["client_id"], row["round_num"], row["split"], row["index"]),
                row["sha256"],
                row["num_samples"],
                row["upload_bytes"],
                row["blob"],
            )
            for row in rows
        ]

    def close_part(self, client_id: str, round_num: int, report: RoundReport) -> RunState:
        """Close a device's part of a round and remember how it went, or neither."""
        row = {"run_id": self.run_id, "round_num": round_num, "client_id": client_id}
        with self._write() as connection:
            before, after = self._advance(connection, Reported(client_id, round_num))
            if after != before:
                self._upsert(connection, _reports, {**row, "report": to_json(report).decode()})
        return after

    def reports(self, round_num: int) -> dict[str, RoundReport]:
        """Reports of a round by device."""
        query = (
            sa.select(_reports.c.client_id, _reports.c.report)
            .where(_reports.c.run_id == self.run_id, _reports.c.round_num == round_num)
            .order_by(_reports.c.client_id)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return {row.client_id: from_json(RoundReport, row.report.encode()) for row in rows}

    def add_round_metrics(self, round_num: int, metrics: dict[str, float]) -> None:
        """Remember what the trainer measured in a round."""
        with self._write() as connection:
            self._note_round(connection, round_num, metrics=json.dumps(metrics))

    def rounds(self) -> list[RoundRecord]:
        """All rounds that were opened, oldest first."""
        query = sa.select(_rounds).where(_rounds.c.run_id == self.run_id).order_by(_rounds.c.round_num)
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [
            RoundRecord(
                row.round_num, row.opened_at, row.collected_at, row.trained_at, json.loads(row.metrics)
            )
            for row in rows
        ]

    def count_traffic(self, kind: str, round_num: int, num_bytes: int) -> None:
        """Add to the bytes of one kind in one round."""
        row = {"run_id": self.run_id, "kind": kind, "round_num": round_num, "num_bytes": num_bytes}
        with self._write() as connection:
            connection.execute(
                insert(_traffic)
                .values(row)
                .on_conflict_do_update(
                    index_elements=["run_id", "kind", "round_num"],
                    set_={"num_bytes": _traffic.c.num_bytes + num_bytes},
                )
            )

    def traffic(self) -> dict[tuple[str, int], int]:
        """Bytes by kind and round."""
        query = sa.select(_traffic).where(_traffic.c.run_id == self.run_id)
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return {(row.kind, row.round_num): row.num_bytes for row in rows}

    def report_progress(self, progress: TrainerProgress | None) -> None:
        """Say how far the trainer is."""
        text = "" if progress is None else to_json(progress).decode()
        with self._write() as connection:
            connection.execute(
                sa.update(_runs)
                .where(_runs.c.run_id == self.run_id)
                .values(progress=text, trainer_seen_at=time.time())
            )

    def progress(self) -> tuple[TrainerProgress | None, float]:
        """How far the trainer is, and when it last said so."""
        query = sa.select(_runs.c.progress, _runs.c.trainer_seen_at).where(_runs.c.run_id == self.run_id)
        with self._engine.begin() as connection:
            row = connection.execute(query).one()
        progress = from_json(TrainerProgress, row.progress.encode()) if row.progress else None
        return progress, row.trainer_seen_at
