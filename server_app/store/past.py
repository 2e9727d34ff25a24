"""Read what was finished: a page of rounds, sums over all of them, and each device's last report.

What a status shows must not take longer the longer a run lasts: each query here reads as many rows as it
gives.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from gkt_core.wire.protocol import RoundReport, from_json
from server_app.store import tables
from server_app.store.engine import write_transaction
from server_app.store.records import RoundRecord
from server_app.store.uploads import TOTAL

# Of traffic; a row is found by its kind, as the table's key begins with it.
KINDS = (
    "upload/shards",
    "upload/reports",
    "download/bundle",
    "download/soft_labels",
    "download/model",
)
# Of the names that a statement may be given at once.
_AT_ONCE = 500


# Of what devices sent and reported, rows of so many rounds are kept: for people, and for who counts bytes.
KEPT_ROUNDS = 100


class Past:
    """What lies behind one run. Every method is one transaction.

    Args:
        engine: The database.
        run_id: Which run.
    """

    def __init__(self, engine: sa.Engine, run_id: str) -> None:
        self._engine, self._run_id = engine, run_id

    def rounds(self, after: int, limit: int) -> list[RoundRecord]:
        """Give the finished rounds after one, oldest first."""
        rounds = tables.rounds.c
        return self._records(
            self._finished().where(rounds.round_num > after).order_by(rounds.round_num), limit
        )

    def opened_at(self, round_num: int) -> float:
        """When a round was opened, in seconds since the epoch; 0 for one that was not."""
        rounds = tables.rounds.c
        query = sa.select(rounds.opened_at).where(
            rounds.run_id == self._run_id, rounds.round_num == round_num
        )
        with self._engine.begin() as connection:
            return float(connection.execute(query).scalar() or 0.0)

    def rounds_of(self, client_id: str) -> list[int]:
        """The rounds that a device has closed its part of, ascending: the first one, and those kept."""
        reports = tables.reports.c
        query = sa.select(reports.round_num).where(
            reports.run_id == self._run_id, reports.client_id == client_id
        )
        with self._engine.begin() as connection:
            return sorted(connection.execute(query).scalars())

    def drop_spent(self, last: Mapping[str, int], needed: Mapping[str, Collection[int]]) -> None:
        """Forget rows of shards and reports of long ago; the first report of each device stays.

        Args:
            last: Each device's last round with soft labels.
            needed: Rounds of each device whose upload is trained on, answered or evaluated still.
        """
        newest = max(last.values(), default=0)
        if newest <= KEPT_ROUNDS:
            return
        reports = tables.reports.c
        firsts = sa.select(reports.client_id, sa.func.min(reports.round_num)).where(
            reports.run_id == self._run_id
        )
        with write_transaction(self._engine) as connection:
            first = {
                client_id: number for client_id, number in connection.execute(firsts.group_by("client_id"))
            }
            for table in (tables.shards, tables.reports):
                old = sa.select(table.c.client_id, table.c.round_num).where(
                    table.c.run_id == self._run_id, table.c.round_num < newest - KEPT_ROUNDS
                )
                spent = [
                    {"its": client_id, "number": number}
                    for client_id, number in connection.execute(old.distinct())
                    if number < last.get(client_id, newest) - KEPT_ROUNDS
                    and number not in needed.get(client_id, ())
                    and not (table is tables.reports and number == first[client_id])
                ]
                if spent:
                    gone = sa.delete(table).where(
                        table.c.run_id == self._run_id,
                        table.c.client_id == sa.bindparam("its"),
                        table.c.round_num == sa.bindparam("number"),
                    )
                    connection.execute(gone, spent)

    def num_rows(self) -> dict[str, int]:
        """Count the rows of each table."""
        with self._engine.begin() as connection:
            return {
                table.name: int(
                    connection.execute(
                        sa.select(sa.func.count()).where(table.c.run_id == self._run_id)
                    ).scalar_one()
                )
                for table in tables.metadata.sorted_tables
            }

    def shard_blobs(self) -> set[str]:
        """The blobs of all shards that are known, those that are dropped by now among them."""
        query = sa.select(tables.shards.c.blob).where(tables.shards.c.run_id == self._run_id)
        with self._engine.begin() as connection:
            return set(connection.execute(query).scalars())

    def last_rounds(self, limit: int) -> list[RoundRecord]:
        """Give the finished rounds that ended last, oldest first."""
        newest_first = self._finished().order_by(tables.rounds.c.round_num.desc())
        return self._records(newest_first, limit)[::-1]

    def _finished(self) -> sa.Select[Any]:
        rounds = tables.rounds.c
        columns = rounds.round_num, rounds.opened_at, rounds.collected_at, rounds.trained_at, rounds.metrics
        return sa.select(*columns).where(rounds.run_id == self._run_id, rounds.trained_at > 0)

    def _records(self, query: sa.Select[Any], limit: int) -> list[RoundRecord]:
        with self._engine.begin() as connection:
            rows = connection.execute(query.limit(limit)).all()
        return [
            RoundRecord(num, opened, collected, trained, json.loads(metrics))
            for num, opened, collected, trained, metrics in map(tuple, rows)
        ]

    def traffic_totals(self) -> dict[str, int]:
        """Give the bytes of all rounds by kind."""
        traffic = tables.traffic.c
        query = sa.select(traffic.kind, traffic.num_bytes).where(
            traffic.run_id == self._run_id, traffic.kind.in_(KINDS), traffic.round_num == TOTAL
        )
        with self._engine.begin() as connection:
            return {row.kind: row.num_bytes for row in connection.execute(query)}

    def traffic_of(self, round_nums: list[int]) -> dict[tuple[str, int], int]:
        """Give the bytes of some rounds by kind and round."""
        traffic = tables.traffic.c
        query = sa.select(traffic.kind, traffic.round_num, traffic.num_bytes).where(
            traffic.run_id == self._run_id, traffic.kind.in_(KINDS), traffic.round_num.in_(round_nums)
        )
        with self._engine.begin() as connection:
            return {(row.kind, row.round_num): row.num_bytes for row in connection.execute(query)}

    def reports(self, rounds: Mapping[str, int]) -> dict[str, RoundReport]:
        """Give the report of a round of each device, of those that sent one.

        Args:
            rounds: Of each device, which one.
        """
        reports = tables.reports.c
        # By round, as the table's key begins with it: few devices are in another round than the others.
        members: dict[int, list[str]] = {}
        for client_id, number in rounds.items():
            members.setdefault(number, []).append(client_id)
        found: dict[str, RoundReport] = {}
        with self._engine.begin() as connection:
            for number, client_ids in members.items():
                for begin in range(0, len(client_ids), _AT_ONCE):
                    query = sa.select(reports.client_id, reports.report).where(
                        reports.run_id == self._run_id,
                        reports.round_num == number,
                        reports.client_id.in_(client_ids[begin : begin + _AT_ONCE]),
                    )
                    for row in connection.execute(query):
                        found[row.client_id] = from_json(RoundReport, row.report.encode())
        return found
