"""A status is as much work after two thousand rounds as after thirty: counted in the database's own steps."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gkt_core.wire.protocol import SHOWN_ROUNDS, RoundReport, to_json
from server_app.rounds.state import Phase, RunState
from server_app.status import round_page, run_status
from server_app.store import RunStore, edge_metrics
from tests.server_app.web.api_fixtures import METRICS, REPORT

KINDS = ("upload/shards", "upload/reports", "download/soft_labels")


class Work:
    """Instructions of SQLite's machine, and statements, of what is done to one store."""

    def __init__(self, store: RunStore) -> None:
        self.instructions = self.statements = 0
        engine = store._engine
        engine.dispose()

        @sa.event.listens_for(engine, "connect")
        def _count(connection: Any, _: Any) -> None:
            connection.set_progress_handler(self._instruction, 1)

        @sa.event.listens_for(engine, "before_cursor_execute")
        def _statement(*_: Any) -> None:
            self.statements += 1

    def _instruction(self) -> int:
        self.instructions += 1
        return 0


def report(number: int) -> RoundReport:
    return replace(REPORT, num_examples=number + 2, feature_clip=float(number))


def filled(path: Path, num_rounds: int, num_devices: int, *, old: bool = False) -> RunStore:
    """A run with so many finished rounds; ``old``, as an earlier version kept them."""
    names = tuple(f"client-{number:03d}" for number in range(num_devices))
    state = RunState(
        num_devices,
        num_rounds + 1,
        phase=Phase.COLLECTING,
        round_num=num_rounds + 1,
        clients=names,
        selected=names,
        answered=tuple((name, num_rounds) for name in names),
    )
    store = RunStore.create(path, "run-1", {}, state)
    reports = [report(number) for number in range(num_devices)]
    with sqlite3.connect(path) as database:
        for name in names:
            database.execute("INSERT INTO clients VALUES ('run-1', ?, 12, 5, 'portable')", (name,))
        for number in range(1, num_rounds + 1):
            kept = {f"part/{name}": float(number) for name in names} if old else edge_metrics(reports)
            row = (number, number + 0.0, number + 0.25, number + 0.75, json.dumps(METRICS | kept))
            database.execute("INSERT INTO rounds VALUES ('run-1', ?, ?, ?, ?, ?)", row)
            for name, said in zip(names, reports, strict=True):
                row_of_device = (number, name, to_json(said).decode())
                database.execute("INSERT INTO reports VALUES ('run-1', ?, ?, ?)", row_of_device)
    database.close()
    if old:
        with sqlite3.connect(path) as database:
            for number in range(1, num_rounds + 1):
                for kind in KINDS:
                    database.execute("INSERT INTO traffic VALUES ('run-1', ?, ?, 1000)", (kind, number))
            # Another run of this database.
            database.execute("INSERT INTO traffic VALUES ('run-2', ?, 1, 7)", KINDS[:1])
            database.execute("UPDATE alembic_version SET version_num = '0005'")
        database.close()
    else:
        for number in range(1, num_rounds + 1):
            for kind in KINDS:
                store.count_traffic(kind, number, 1000)
    store.close()
    opened = RunStore.open(path, "run-1")
    assert opened is not None
    return opened


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[dict[int, RunStore]]:
    made = {rounds: filled(tmp_path / f"{rounds}.sqlite", rounds, 6) for rounds in (30, 600)}
    yield made
    for each in made.values():
        each.close()


def test_a_status_is_as_much_work_however_many_rounds_there_were(stores: dict[int, RunStore]) -> None:
    works = {rounds: Work(store) for rounds, store in stores.items()}
    statuses = {rounds: run_status(store) for rounds, store in stores.items()}
    few, many = works[30], works[600]
    assert few.statements == many.statements < 30
    assert 500 < many.instructions < 1.02 * few.instructions
    for rounds, status in statuses.items():
        assert status.server_steps == rounds
        assert status.traffic == dict.fromkeys(KINDS, 1000 * rounds)
        shown = [metrics.round_num for metrics in status.finished_rounds]
        assert shown == list(range(rounds - SHOWN_ROUNDS + 1, rounds + 1))
        assert [client.feature_clip for client in status.clients] == [0, 1, 2, 3, 4, 5]
    assert len(to_json(statuses[600])) < 1.05 * len(to_json(statuses[30]))


def test_pages_hold_every_round_once_and_each_is_as_much_work(stores: dict[int, RunStore]) -> None:
    store, work = stores[600], Work(stores[600])
    seen: list[int] = []
    costs, after = [], 0
    while True:
        before = work.instructions
        page = round_page(store, after, 100)
        costs.append(work.instructions - before)
        seen += [metrics.round_num for metrics in page.rounds]
        if not page.next_after:
            break
        after = page.next_after
    assert seen == list(range(1, 601)) and len(costs) == 6
    assert max(costs) < 1.1 * min(costs)
    assert round_page(store, 600, 100).rounds == []


def test_rounds_of_an_earlier_version_are_shown_as_they_were(tmp_path: Path) -> None:
    """Their reports are read, and what was counted is added up once."""
    old = filled(tmp_path / "old.sqlite", 25, 3, old=True)
    new = filled(tmp_path / "new.sqlite", 25, 3)
    try:
        before, now = run_status(old), run_status(new)
        assert before.finished_rounds == now.finished_rounds
        assert before.traffic == now.traffic == dict.fromkeys(KINDS, 25_000)
        last = now.finished_rounds[-1]
        assert (last.num_examples, last.upload_bytes, last.download_bytes) == (2 + 3 + 4, 2000, 1000)
        assert last.edge_images_per_second == 24.0
        old.count_traffic(KINDS[0], 26, 500)
        assert old.past.traffic_totals()[KINDS[0]] == 25_500
    finally:
        old.close()
        new.close()
