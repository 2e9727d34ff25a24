"""Which rows of long ago go, and which stay: in SQLite and in PostgreSQL."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from gkt_core.wire.protocol import RoundReport
from gkt_core.wire.shards import ShardKey
from server_app.rounds.state import Claimed, RunState, Trained
from server_app.store import RunStore, ShardRecord, past
from server_app.store.records import ClientRecord
from tests.server_app.server_fixtures import run_config

REPORT = RoundReport(1, 1, 12, 0.75, 0.5, 1.5, 0.25, 8.0)
ROUNDS = 12


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return tmp_path / "run.sqlite"
    return str(request.getfixturevalue("postgres_url"))


def test_rows_go_but_for_those_that_are_needed(database: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "KEPT_ROUNDS", 5)
    state = RunState(num_clients=3, rounds=ROUNDS)
    with contextlib.closing(RunStore.create(database, "run-1", run_config().to_dict(), state)) as store:
        other = RunStore.create(database, "run-2", run_config().to_dict(), state)
        for client_id in ("a", "b", "c"):
            store.join(ClientRecord(client_id, 12, 5, "portable"))
        for number in range(1, ROUNDS):
            for client_id in ("a", "b", "c"):
                key = ShardKey(client_id, number, "train", 0)
                store.add_shard(ShardRecord(key, "x" * 64, 8, 100, f"rounds/{number}/{client_id}"))
                other.add_shard(ShardRecord(key, "x" * 64, 8, 100, f"rounds/{number}/{client_id}"))
                store.close_part(client_id, number, REPORT)
            store.apply(Claimed(number))
            store.apply(Trained(number))
        # b was away from round 8 on; of c, what it sent in round 2 is trained on still.
        store.past.drop_spent({"a": 11, "b": 8, "c": 11}, {"c": {2, 11}})
        kept = {
            client_id: [number for number in range(1, ROUNDS) if store.shards(number, client_id)]
            for client_id in ("a", "b", "c")
        }
        assert kept == {"a": [*range(6, 12)], "b": [*range(3, 12)], "c": [2, *range(6, 12)]}
        # The first report of each says since when it has taken part.
        assert store.past.rounds_of("a") == [1, *range(6, 12)]
        assert store.past.rounds_of("c") == [1, 2, *range(6, 12)]
        assert all(other.shards(number, "a") for number in range(1, ROUNDS)), "of another run"
        other.close()
