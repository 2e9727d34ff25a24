"""Devices on whose samples no network can be trained: a run goes on without them, from what was good."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from gkt_core.errors import GKTError
from gkt_core.wire.shards import map_feature_shard, write_feature_shard
from server_app import RunContext
from server_app.quarantine import Watch
from server_app.rounds.state import Phase, Resumed, Revoked, RunState
from server_app.run_folder import shard_blob
from server_app.store import ShardRecord
from server_app.trainer.trainer import Trainer
from tests.server_app.server_fixtures import CLIENTS, TOKEN
from tests.server_app.trainer.whole_run import FinishedRun, RunOfTwo

BAD, GOOD = CLIENTS


def collect(undisturbed: FinishedRun, target: RunOfTwo) -> RunContext:
    """Have all devices join and send their part of round 1, as they did in the other run."""
    with httpx.Client(transport=httpx.WSGITransport(app=target.app), base_url="http://server") as http:
        http.headers["Authorization"] = f"Bearer {TOKEN}"
        uploads = undisturbed.uploads(r".*/rounds/1/.*")
        for each in (*undisturbed.uploads(r".*/clients/[^/]+"), *uploads):
            kept = ("x-content-sha256", "content-encoding")
            headers = {name: value for name, value in each.headers.items() if name in kept}
            http.put(each.path, content=each.sent, headers=headers).raise_for_status()
    assert target.run.store.state().phase is Phase.READY
    return target.run


def spoil(run: RunContext, split: str) -> None:
    """Put huge features in the place of a device's, as an earlier version would have taken them."""
    for record in run.store.shards(1, BAD):
        if record.key.split == split:
            shard = map_feature_shard(run.blobs.local_path(record.blob), record.key, run.shard_spec)
            features = np.full((len(shard.labels), *shard.feature_shape), 1e38, np.float32)
            features[:, :, ::2] = 3e38
            content = shard.sample_ids, features, shard.client_logits, shard.labels
            data = write_feature_shard(record.key, *content, run.config.codec)
            sha256 = hashlib.sha256(data).hexdigest()
            blob = shard_blob(record.key, sha256)
            run.blobs.put(blob, data)
            run.store.add_shard(ShardRecord(record.key, sha256, record.num_samples, len(data), blob))


def train_once(run: RunContext) -> tuple[RunState, dict[str, torch.Tensor]]:
    trainer = Trainer(run)
    assert trainer._lease.take()
    state = trainer._train(1)
    return state, {name: value.clone() for name, value in trainer._network.state_dict().items()}


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Lets the judge of uploads find what it is told to."""

    def find(reasons: dict[str, str]) -> None:
        monkeypatch.setattr(Watch, "check", lambda self, *sources, **options: reasons)

    find({})
    return find


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("split", ["train", "validation"])
def test_whose_samples_break_the_training_is_left_out_and_leaves_no_trace(
    undisturbed: FinishedRun,
    copied: RunOfTwo,
    make_copy: Callable[[], RunOfTwo],
    unwatched: Callable[[dict[str, str]], None],
    split: str,
) -> None:
    run = collect(undisturbed, copied)
    spoil(run, split)
    state, weights = train_once(run)
    reason = dict(state.quarantined)[BAD]
    assert "NaN or infinity: its features reach 3" in reason
    assert ("validation" in reason) is (split == "validation")
    assert (state.phase, state.round_num, state.error) == (Phase.COLLECTING, 2, "")
    assert dict(state.answered) == {GOOD: 1}
    # As if the device had been left out from the beginning.
    unwatched({BAD: "told"})
    other_state, expected = train_once(collect(undisturbed, make_copy()))
    assert dict(other_state.quarantined) == {BAD: "told"}
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_a_run_in_which_nobody_is_left_out_names_the_device(
    undisturbed: FinishedRun, copied: RunOfTwo, unwatched: Callable[[dict[str, str]], None]
) -> None:
    run = collect(undisturbed, copied)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, quarantine=False))
    spoil(run, "validation")
    with pytest.raises(GKTError, match=f"{BAD}: its validation samples"):
        train_once(run)
    failed = run.store.state()
    assert failed.phase is Phase.FAILED and "gkt clients revoke" in failed.error
    # As it says.
    run.store.apply(Revoked(BAD))
    run.store.apply(Resumed())
    state, _ = train_once(run)
    assert (state.round_num, dict(state.answered)) == (2, {GOOD: 1})


def test_a_training_that_breaks_by_itself_is_nobodys_fault(
    undisturbed: FinishedRun, copied: RunOfTwo, unwatched: Callable[[dict[str, str]], None]
) -> None:
    run = collect(undisturbed, copied)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, server_lr=1e30))
    with pytest.raises(GKTError, match="gkt serve --resume-failed --server-lr"):
        train_once(run)
    assert run.store.state().quarantined == ()
    assert not run.epoch_checkpoint_path.exists()


@pytest.fixture
def make_copy(empty_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], RunOfTwo]]:
    """Makes copies of the run that nobody has joined."""
    made: list[RunOfTwo] = []

    def make() -> RunOfTwo:
        folder = tmp_path_factory.mktemp("copy")
        shutil.copytree(empty_run, folder / "run")
        made.append(RunOfTwo(folder / "run", folder / "devices"))
        return made[-1]

    yield make
    for each in made:
        each.run.store.close()
