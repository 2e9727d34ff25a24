"""The stores: what one process writes the other one sees, whole or not at all, and nothing is lost."""

import contextlib
import functools
import itertools
import random
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from gkt_core.errors import InputError, RoundError
from gkt_core.wire.protocol import RoundReport, TrainerProgress
from gkt_core.wire.shards import ShardKey
from server_app import open_run
from server_app.rounds.state import (
    Claimed,
    DeadlinePassed,
    Event,
    Failed,
    Joined,
    Phase,
    Released,
    Reported,
    RunState,
    Trained,
)
from server_app.store import ClientRecord, RunStore, ShardRecord, sql
from tests.server_app.waiting import at_once

CONFIG = {"rounds": 2, "codec": "uint8", "alpha": 0.5}
REPORT = RoundReport(2, 1, 12, 0.75, 0.5, 1.5, 0.25, 8.0)
NUM_THREADS = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


class Stores:
    """Opens stores on one database, and closes them."""

    def __init__(self, database: Path | str) -> None:
        self._database = database
        self._opened: list[RunStore] = []

    def create(self, num_clients: int = 2, num_rounds: int = 2) -> RunStore:
        state = RunState(num_clients, num_rounds)
        self._opened.append(RunStore.create(self._database, "run-1", CONFIG, state))
        return self._opened[-1]

    def again(self) -> RunStore:
        store = RunStore.open(self._database)
        assert store is not None
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest) -> Iterator[Stores]:
    database = request.getfixturevalue("path" if request.param == "sqlite" else "postgres_url")
    with contextlib.closing(Stores(database)) as stores:
        yield stores


def shard(
    client_id: str = "a", round_num: int = 1, split: str = "train", index: int = 0, sha256: str = "0" * 64
) -> ShardRecord:
    key = ShardKey(client_id, round_num, split, index)
    return ShardRecord(key, sha256, 8, 100, f"rounds/{round_num}/{client_id}/{split}-{index}")


# --- one store


def test_what_was_created_is_what_is_opened(opened: Stores) -> None:
    created = opened.create(num_clients=3, num_rounds=7)
    found = opened.again()
    assert found.run_id == created.run_id == "run-1"
    assert found.config() == CONFIG
    assert found.state() == created.state() == RunState(3, 7)
    assert found.clients() == {} and found.shards(1) == [] and found.reports(1) == {}
    assert found.rounds() == [] and found.traffic() == {} and found.progress() == (None, 0.0)


def test_creating_a_run_again_leaves_it_as_it_is(opened: Stores) -> None:
    opened.create().apply(Joined("a"))
    assert opened.create(num_clients=9).state() == RunState(2, 2, clients=("a",))


def test_there_is_nothing_to_open(path: Path) -> None:
    assert RunStore.open(path) is None
    assert not path.exists()
    path.touch()
    assert RunStore.open(path) is None


def test_a_file_that_is_no_database_is_an_input_error(path: Path) -> None:
    path.write_bytes(b"not a database, " * 64)
    with pytest.raises(InputError, match=r"run\.sqlite cannot be read"):
        RunStore.open(path)
    with pytest.raises(InputError, match=r"run\.sqlite cannot be read"):
        open_run(path.parent)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        open_run(tmp_path)


def test_events_persist_and_a_second_store_sees_them(opened: Stores) -> None:
    ours, theirs = opened.create(), opened.again()
    assert ours.apply(Joined("b")) == theirs.state() == RunState(2, 2, clients=("b",))
    assert theirs.apply(Joined("a")).phase is Phase.COLLECTING
    assert ours.state().clients == ("a", "b")
    ours.close()
    assert opened.again().state() == theirs.state()


def test_a_refused_event_leaves_state_and_times(opened: Stores) -> None:
    store = opened.create()
    store.apply(Joined("a"))
    before = store.state(), store.rounds()
    for event in (Claimed(1), Reported("a", 1), Trained(1)):
        with pytest.raises(RoundError):
            store.apply(event)
    assert (store.state(), store.rounds()) == before


def test_devices_are_kept_by_id_and_repeating_replaces(opened: Stores) -> None:
    store = opened.create()
    for client_id in ("b", "a"):
        store.join(ClientRecord(client_id, 10, 2, "ort_training"))
    store.join(ClientRecord("b", 20, 4, "portable"))
    assert list(opened.again().clients().items()) == [
        ("a", ClientRecord("a", 10, 2, "ort_training")),
        ("b", ClientRecord("b", 20, 4, "portable")),
    ]
    with pytest.raises(RoundError):
        store.join(ClientRecord("c", 10, 2, "ort_training"))
    assert list(opened.again().clients()) == ["a", "b"]


@pytest.mark.parametrize("seed", range(3))
def test_shards_come_in_canonical_order_whatever_order_they_arrived_in(opened: Stores, seed: int) -> None:
    store = opened.create()
    keys = list(itertools.product(("A", "a", "a-b", "b"), ("train", "validation"), (0, 1, 2, 10)))
    arrived = keys.copy()
    random.Random(seed).shuffle(arrived)
    for client_id, split, index in arrived:
        store.add_shard(shard(client_id, 1, split, index))
    store.add_shard(shard("a", 2))
    found = [(each.key.client_id, each.key.split, each.key.index) for each in store.shards(1)]
    assert found == keys
    assert [each.key for each in store.shards(1, "a-b")] == [
        ShardKey("a-b", 1, split, index) for split in ("train", "validation") for index in (0, 1, 2, 10)
    ]
    assert store.shards(2) == [shard("a", 2)]
    assert store.shards(2, "b") == store.shards(3) == []


def test_a_shard_that_arrives_again_replaces_the_first(opened: Stores) -> None:
    store = opened.create()
    store.add_shard(shard(sha256="1" * 64))
    store.add_shard(shard(sha256="2" * 64))
    assert opened.again().shards(1) == [shard(sha256="2" * 64)]


def test_reports_by_device_and_round(opened: Stores) -> None:
    store = opened.create()
    with pytest.raises(RoundError):
        store.close_part("a", 1, REPORT)
    for client_id in ("a", "b"):
        store.join(ClientRecord(client_id, 10, 2, "ort_training"))
    assert store.close_part("b", 1, REPORT).reported == ("b",)
    other = RoundReport(2, 1, 12, 0.5, 0.625, 1.0, 0.25, 9.0)
    assert store.close_part("b", 1, other).reported == ("b",), "only the first report counts"
    assert store.close_part("a", 1, other).phase is Phase.READY
    assert list(opened.again().reports(1).items()) == [("a", other), ("b", REPORT)]
    store.apply(Claimed(1))
    store.apply(Trained(1))
    store.close_part("a", 2, REPORT)
    store.apply(DeadlinePassed(2))
    assert store.close_part("b", 2, REPORT).phase is Phase.READY
    assert store.reports(2) == {"a": REPORT}, "too late"
    assert store.reports(3) == {}


def test_round_times_are_noted_when_a_round_opens_closes_and_ends(
    opened: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened.create()
    clock = itertools.count(100.0)
    monkeypatch.setattr(sql, "time", types.SimpleNamespace(time=lambda: next(clock)))
    for event in (Joined("a"), Joined("b"), Reported("a", 1), Reported("b", 1), Claimed(1)):
        store.apply(event)
    (first,) = store.rounds()
    assert (first.round_num, first.opened_at, first.collected_at, first.trained_at) == (1, 101, 103, 0)
    store.apply(Released())
    store.apply(Claimed(1))
    assert store.rounds() == [first], "a round that is trained again was collected when it was collected"
    store.add_round_metrics(1, {"train_loss": 0.5})
    later: tuple[Event, ...] = (Trained(1), Reported("a", 2), Reported("b", 2), Claimed(2), Trained(2))
    for each in later:
        store.apply(each)
    first, last = opened.again().rounds()
    assert (first.opened_at, first.collected_at, first.trained_at) == (101, 103, 107)
    assert (first.metrics, last.metrics) == ({"train_loss": 0.5}, {})
    assert (last.round_num, last.opened_at, last.collected_at, last.trained_at) == (2, 107, 109, 111)


def test_a_failure_is_no_end_of_a_round(opened: Stores) -> None:
    store = opened.create(num_clients=1)
    for event in (Joined("a"), Reported("a", 1), Claimed(1), Failed("disk full")):
        store.apply(event)
    assert [(record.round_num, record.trained_at) for record in store.rounds()] == [(1, 0.0)]


def test_progress_is_also_the_trainers_sign_of_life(opened: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened.create()
    clock = itertools.count(50.0)
    monkeypatch.setattr(sql, "time", types.SimpleNamespace(time=lambda: next(clock)))
    store.report_progress(TrainerProgress(1, 2, 20, 300.5, 0.25))
    assert opened.again().progress() == (TrainerProgress(1, 2, 20, 300.5, 0.25), 50.0)
    store.report_progress(None)
    assert opened.again().progress() == (None, 51.0)


def test_traffic_adds_up_by_kind_and_round(opened: Stores) -> None:
    store = opened.create()
    for kind, round_num, num_bytes in (
        ("upload/shards", 1, 10),
        ("upload/shards", 1, 5),
        ("upload/shards", 2, 7),
        ("download/model", 0, 2**40),
        ("download/model", 0, 2**40),
    ):
        store.count_traffic(kind, round_num, num_bytes)
    expected = {("upload/shards", 1): 15, ("upload/shards", 2): 7, ("download/model", 0): 2**41}
    assert opened.again().traffic() == expected


# --- the lease


def test_one_trainer_has_the_lease(opened: Stores) -> None:
    store, other = opened.create(num_clients=1), opened.again()
    assert store.take_lease("first", 60) and store.take_lease("first", 60)
    assert not other.take_lease("second", 60)
    other.release_lease("second")
    assert not other.take_lease("second", 60), "who has it not cannot give it back"
    store.release_lease("first")
    assert other.take_lease("second", 60) and not store.take_lease("first", 60)


def test_a_lease_runs_out_and_who_lost_it_publishes_nothing(opened: Stores) -> None:
    store, other = opened.create(num_clients=1), opened.again()
    for event in (Joined("a"), Reported("a", 1)):
        store.apply(event)
    assert store.take_lease("first", -1)
    assert store.apply(Claimed(1), "first").phase is Phase.TRAINING
    assert other.take_lease("second", 60)
    before = store.state()
    with pytest.raises(RoundError, match="comes from first, but second trains this run"):
        store.apply(Trained(1), "first")
    assert store.state() == before
    other.apply(Released())
    other.apply(Claimed(1), "second")
    assert other.apply(Trained(1), "second").round_num == 2


def test_all_trainers_want_the_lease_at_once(opened: Stores) -> None:
    store = opened.create()
    taken = at_once(
        *(functools.partial(store.take_lease, f"trainer-{name}", 60) for name in range(NUM_THREADS))
    )
    assert taken.count(True) == 1


# --- several at once


def test_all_devices_report_at_once_and_the_round_closes_once(opened: Stores) -> None:
    store = opened.create(num_clients=NUM_THREADS)
    names = [f"device-{number}" for number in range(NUM_THREADS)]
    at_once(*(functools.partial(store.apply, Joined(name)) for name in names))
    state = store.state()
    assert (state.phase, state.clients) == (Phase.COLLECTING, tuple(names))
    states = at_once(*(functools.partial(store.apply, Reported(name, 1)) for name in names))
    assert sorted(len(state.reported) for state in states) == list(range(1, NUM_THREADS + 1))
    assert [state.phase for state in states].count(Phase.READY) == 1
    assert store.state().reported == tuple(names)
    assert len(store.rounds()) == 1


def test_more_devices_than_places_join_at_once(opened: Stores) -> None:
    store = opened.create(num_clients=3)

    def join(name: str) -> RunState | None:
        try:
            return store.apply(Joined(name))
        except RoundError:
            return None

    states = at_once(*(functools.partial(join, f"device-{number}") for number in range(NUM_THREADS)))
    assert sum(state is not None for state in states) == 3
    assert len(store.state().clients) == 3


def test_two_trainers_cannot_claim_the_same_round(opened: Stores) -> None:
    store, other = opened.create(num_clients=1), opened.again()
    store.apply(Joined("a"))
    store.apply(Reported("a", 1))

    def claim(each: RunStore) -> RunState | None:
        try:
            return each.apply(Claimed(1))
        except RoundError:
            return None

    assert at_once(lambda: claim(store), lambda: claim(other)).count(None) == 1


def test_traffic_counts_every_byte_of_two_processes_worth_of_threads(opened: Stores) -> None:
    stores = [opened.create(), opened.again()]
    times = 25

    def count(number: int) -> None:
        for _ in range(times):
            stores[number % 2].count_traffic("upload/shards", 1, 3)
            stores[number % 2].count_traffic(f"download/{number % 2}", 1, 1)

    at_once(*(functools.partial(count, number) for number in range(NUM_THREADS)))
    assert stores[0].traffic() == {
        ("upload/shards", 1): 3 * times * NUM_THREADS,
        ("download/0", 1): times * NUM_THREADS // 2,
        ("download/1", 1): times * NUM_THREADS // 2,
    }
