"""Whole runs with real devices and the real trainer: without rounds, and with a quarantined device."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.device import DeviceResult
from gkt_core.errors import RunFailedError
from gkt_core.rounds import client_shards
from gkt_core.wire.shards import ShardKey, write_feature_shard
from server_app import RunContext, create_run
from server_app.rounds.state import Phase, RunState
from server_app.status import run_status
from server_app.store import ClientRecord, RunStore, tables
from server_app.trainer.trainer import Trainer
from tests.server_app.server_fixtures import CLIENTS, TOKEN, run_config
from tests.server_app.trainer.whole_run import Killed, RunOfTwo
from tests.server_app.waiting import until

Begin = Callable[..., RunOfTwo]


@pytest.fixture
def begin(server_bundle: Path, tmp_path: Path) -> Iterator[Begin]:
    opened: list[RunOfTwo] = []

    def start(**changes: Any) -> RunOfTwo:
        create_run(tmp_path / "run", server_bundle, run_config(**changes), TOKEN).store.close()
        opened.append(RunOfTwo(tmp_path / "run", tmp_path / "devices"))
        return opened[-1]

    yield start
    for each in opened:
        each.run.store.close()


@pytest.mark.system
def test_a_run_without_rounds_through_a_trainer_that_dies(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(mode="async", rounds=3, server_epochs=2)
    save = Trainer._save_epoch
    saved: list[int] = []

    def killed_once(self: Trainer, state: RunState, epoch: int) -> None:
        save(self, state, epoch)
        saved.append(state.round_num)
        if len(saved) == 2:
            raise Killed

    monkeypatch.setattr(Trainer, "_save_epoch", killed_once)

    def train(opened: RunContext) -> RunState:
        with pytest.raises(Killed):
            Trainer(opened).run_until_done()
        # The process is gone, and so is its lease after a while.
        opened.store.release_lease(_owner(opened.store))
        return Trainer(opened).run_until_done()

    state, results = run.train(train)
    assert (state.phase, dict(state.done), dict(state.answered)) == (
        Phase.FINISHED,
        dict.fromkeys(CLIENTS, 3),
        dict.fromkeys(CLIENTS, 3),
    )
    assert [each.rounds for each in results] == [3, 3]
    assert run.models()[0] != run.models()[1]
    status = run_status(run.run.store)
    assert (status.mode, status.round_num, status.staleness) == ("async", 3, dict.fromkeys(CLIENTS, 0))
    assert 3 <= status.server_steps <= 6 and len(status.finished_rounds) == status.server_steps
    assert sum(step.num_examples for step in status.finished_rounds) == 3 * (12 + 15)
    assert all(step.upload_bytes > 0 and step.seconds >= 0 for step in status.finished_rounds)
    # Shards that were trained on are gone, but for the validation samples of the last uploads.
    left = {path.name.split("-")[0] for path in (run.run.folder / "blobs" / "rounds").rglob("*.safetensors")}
    assert left == {"validation"}


def _owner(store: RunStore) -> str:
    return str(store._run_column(tables.runs.c.lease_owner))


def test_each_device_is_answered_in_its_own_round_whatever_the_servers_step(begin: Begin) -> None:
    """One device is a round ahead: the step that takes the other's first upload is not the first."""
    run = begin(mode="async", rounds=2, max_staleness=1)
    ahead, behind = CLIENTS
    run.run.store.join(ClientRecord(behind, 15, 5, "portable"))

    def late() -> DeviceResult:
        until(lambda: run.run.store.state().last_answer(ahead), "an answer to the first device")
        return run.device(behind)

    state, results = run.together(lambda: run.device(ahead), late)
    assert (state.phase, [each.rounds for each in results]) == (Phase.FINISHED, [2, 2])
    for client_id in CLIENTS:
        asked = [each for each in run.exchanges[client_id] if each.path.endswith("/soft-labels")]
        assert [(each.path.split("/")[5], each.status) for each in asked] == [("1", 200)]
    first = run_status(run.run.store).finished_rounds[0]
    assert first.num_examples == 12, "the first step was the first device's alone"


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_hostile_device_is_left_out_and_told_so(
    mode: str, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hostile(
        key: ShardKey,
        sample_ids: NDArray[np.int64],
        features: NDArray[np.float32],
        logits: NDArray[np.float32],
        labels: NDArray[np.int64],
        codec: str,
        outside: NDArray[np.float32] | None = None,
        label_epsilon: float = 0.0,
    ) -> bytes:
        if key.client_id == CLIENTS[1]:
            logits = np.full_like(logits, -10)
            logits[np.arange(len(labels)), (labels + 1) % logits.shape[1]] = 10
        return write_feature_shard(key, sample_ids, features, logits, labels, codec, outside, label_epsilon)

    monkeypatch.setattr(client_shards, "write_feature_shard", hostile)
    run = begin(mode=mode)

    def is_told() -> None:
        with pytest.raises(RunFailedError, match="quarantined: its logits confidently name another class"):
            run.device(CLIENTS[1])

    state, results = run.together(lambda: run.device(CLIENTS[0]), is_told)
    assert state.phase is Phase.FINISHED and results[0].rounds == 2
    assert list(dict(state.answered)) == [CLIENTS[0]]
    status = run_status(run.run.store)
    assert list(status.quarantined) == [CLIENTS[1]]
    assert all(each.num_examples == 12 for each in status.finished_rounds[-1:])
