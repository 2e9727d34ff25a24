"""Runs in which not every round has an upload, with devices and a trainer that are killed."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.device import DeviceResult
from gkt_core.errors import ArtifactError
from gkt_core.wire.shards import read_soft_labels
from server_app import RunContext, create_run
from server_app.rounds.machine import advance
from server_app.rounds.state import Phase, Quarantined, RunState
from server_app.trainer.trainer import Trainer
from tests.server_app.server_fixtures import CLIENTS, NUM_CLASSES, TOKEN, run_config
from tests.server_app.trainer.whole_run import DATA, FinishedRun, Killed, RunOfTwo

CONFIG = run_config(rounds=4, server_epochs=2, uploads="rounds=1,3")
MOMENTS = (
    ("before", r"PUT .*/rounds/1/.*/report"),
    ("after", r"PUT .*/rounds/1/.*/report"),
    ("before", r"PUT .*/rounds/2/.*/report"),
    ("after", r"PUT .*/rounds/2/.*/report"),
    ("before", r"PUT .*/rounds/3/.*/shards/train/1"),
    ("after", r"PUT .*/rounds/3/.*/report"),
    ("before", r"GET .*/rounds/3/.*/soft-labels"),
    ("before", r"GET .*/model/template"),
)


@pytest.fixture(scope="module")
def scheduled(server_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    folder = tmp_path_factory.mktemp("scheduled")
    create_run(folder / "new", server_bundle, CONFIG, TOKEN).store.close()
    shutil.copytree(folder / "new", folder / "run")
    run = RunOfTwo(folder / "run", folder / "devices")
    state, results = run.train()
    yield FinishedRun(run, state, results)
    run.run.store.close()


@pytest.fixture
def again(scheduled: FinishedRun, tmp_path: Path) -> Iterator[RunOfTwo]:
    """A copy of that run as it was before it began."""
    shutil.copytree(scheduled.of.run.folder.with_name("new"), tmp_path / "run")
    copy = RunOfTwo(tmp_path / "run", tmp_path / "devices")
    yield copy
    copy.run.store.close()


def shards_of(run: RunOfTwo, client_id: str) -> list[str]:
    return [
        each.path for each in run.exchanges[client_id] if each.method == "PUT" and "/shards/" in each.path
    ]


@pytest.mark.system
def test_devices_upload_in_those_rounds_alone(scheduled: FinishedRun) -> None:
    run, state = scheduled.of, scheduled.state
    assert dict(state.uploads) == dict(state.views) == dict.fromkeys(CLIENTS, 3)
    assert dict(state.answered) == dict.fromkeys(CLIENTS, 4)
    for client_id in CLIENTS:
        rounds = [int(re.findall(r"/rounds/(\d+)/", path)[0]) for path in shards_of(run, client_id)]
        assert set(rounds) == {1, 3}
        reports = [run.run.store.reports(number)[client_id].upload_round for number in (1, 2, 3, 4)]
        assert reports == [0, 1, 0, 3]
        files = sorted(path.name for path in (run.devices / client_id).glob("upload-*"))
        # Those before it are for a server that comes back from a backup.
        assert files == ["upload-000001.safetensors", "upload-000003.safetensors"]
        # What is answered in a round without an upload is what was uploaded before.
        for each in run.exchanges[client_id]:
            if re.fullmatch(r".*/rounds/2/.*/soft-labels", each.path):
                labels = read_soft_labels(each.received, client_id, 2, NUM_CLASSES)
                assert set(labels.sample_ids) == set(DATA[client_id].train.sample_ids)
    left = {path.parent.parent.name for path in (run.run.folder / "blobs" / "rounds").rglob("*.safetensors")}
    assert left == {"000003"}, "of each device, the upload that is trained on is kept and no other"


@pytest.mark.system
def test_a_device_that_dies_again_and_again(scheduled: FinishedRun, again: RunOfTwo) -> None:
    left = list(MOMENTS)

    def cut(when: str, call: str) -> None:
        for moment in left:
            if moment[0] == when and re.fullmatch(moment[1], call):
                left.remove(moment)
                raise Killed(call)

    def device() -> DeviceResult:
        while True:
            try:
                return again.device("client-a", cut)
            except Killed:
                pass

    again.together(device, lambda: again.device("client-b"))
    assert left == []
    assert again.outcome() == scheduled.of.outcome()
    assert again.models() == scheduled.of.models()
    sent = shards_of(again, "client-a")
    assert sorted(sent) == sorted(shards_of(scheduled.of, "client-a")), "no shard was sent twice"


@pytest.mark.system
def test_a_trainer_that_dies_in_a_round_without_uploads(
    scheduled: FinishedRun, again: RunOfTwo, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Trainer._save_epoch
    died: list[int] = []

    def killed_once(self: Trainer, state: RunState, epoch: int) -> None:
        save(self, state, epoch)
        if state.round_num == 2 and not died:
            died.append(epoch)
            raise Killed

    monkeypatch.setattr(Trainer, "_save_epoch", killed_once)

    def train(opened: RunContext) -> RunState:
        trainer = Trainer(opened)
        with pytest.raises(Killed):
            trainer.run_until_done()
        opened.store.release_lease(trainer._lease.owner)
        return Trainer(opened).run_until_done()

    again.train(train)
    assert died == [1]
    assert again.outcome() == scheduled.of.outcome()
    assert again.models() == scheduled.of.models()


@pytest.mark.system
def test_a_device_without_its_uploads_extractor_says_so(scheduled: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(scheduled.of.devices, tmp_path / "devices")
    (tmp_path / "devices" / "client-a" / "upload-000003.safetensors").unlink()
    copy = RunOfTwo(scheduled.of.run.folder, tmp_path / "devices")
    with pytest.raises(ArtifactError, match="which made the upload of round 3, cannot be read"):
        copy.device("client-a")
    copy.run.store.close()


@pytest.mark.system
def test_a_released_device_uploads_anew(scheduled: FinishedRun) -> None:
    """Nothing of an upload that was found wanting is held."""
    training: dict[str, Any] = {"phase": Phase.TRAINING, "reported": CLIENTS, "selected": CLIENTS}
    state = dataclasses.replace(scheduled.state, **training)
    held = advance(state, Quarantined("client-a", state.round_num, "noise"))
    assert (held.last_upload("client-a"), held.last_upload("client-b")) == (0, 3)
    assert held.answered_uploads()["client-a"] == 3
