"""Trainers that are killed or stopped by their storage: the next one gives the same bytes."""

import dataclasses
import functools
import shutil
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy.exc import OperationalError

from gkt_core.algorithms import ServerProgress, ServerUpdate, server_update
from gkt_core.errors import GKTError, RunFailedError, StorageUnavailableError
from gkt_core.nn.checkpoint import save_checkpoint
from gkt_core.wire.protocol import to_json
from server_app import RunContext, create_run, open_run, storage_errors
from server_app.rounds.state import Claimed, Event, Failed, Grown, Phase, Released, Resumed, Revoked, RunState
from server_app.status import run_status
from server_app.trainer import step_report, trainer
from server_app.trainer.lease import Lease, LeaseLost, only_trainer
from server_app.trainer.step_report import ServerGone
from server_app.trainer.trainer import Trainer
from tests.server_app.server_fixtures import CLIENTS, TOKEN, run_config
from tests.server_app.trainer.whole_run import WAIT_SECONDS, FinishedRun, Killed, RunOfTwo
from tests.server_app.waiting import until

MakeRun = Callable[[], RunOfTwo]


def killed_while(moment: str, run: RunContext, patch: pytest.MonkeyPatch) -> None:
    """Make the next trainer die at this moment of round 2."""
    real_metrics = run.store.add_round_metrics

    def update(
        *arguments: Any, round_num: int, on_batch: Callable[[ServerProgress], None], **options: Any
    ) -> ServerUpdate:
        def die(progress: ServerProgress) -> None:
            on_batch(progress)
            if round_num == 2 and moment == "the first batch":
                raise Killed

        return server_update(*arguments, round_num=round_num, on_batch=die, **options)

    def metrics(round_num: int, values: dict[str, float]) -> None:
        real_metrics(round_num, values)
        if round_num == 2 and moment == "everything but the last word":
            raise Killed

    def checkpoint(*arguments: Any) -> None:
        if arguments[3]["round_num"] == 2 and moment == "the soft labels":
            raise Killed
        save_checkpoint(*arguments)

    patch.setattr(trainer, "server_update", update)
    patch.setattr(trainer, "save_checkpoint", checkpoint)
    patch.setattr(run.store, "add_round_metrics", metrics)


def is_ready(run: RunContext) -> bool:
    return run.store.state().phase is Phase.READY


def test_a_round_that_a_trainer_left_is_trained_again(undisturbed: FinishedRun, copied: RunOfTwo) -> None:
    """One dies when it has only claimed round 1, three others at moments of round 2."""

    def train(run: RunContext) -> RunState:
        until(lambda: is_ready(run), "a complete round", WAIT_SECONDS)
        run.store.apply(Claimed(1))
        for moment in ("the first batch", "the soft labels", "everything but the last word"):
            with pytest.MonkeyPatch.context() as patch:
                killed_while(moment, run, patch)
                with pytest.raises(Killed):
                    Trainer(run).run_until_done()
            state = run.store.state()
            assert (state.phase, state.round_num) == (Phase.TRAINING, 2), moment
        return Trainer(run).run_until_done()

    copied.together(undisturbed.replay(copied), train=train)
    assert copied.outcome() == undisturbed.of.outcome()


def test_a_trainer_whose_server_is_gone_trains_no_more(undisturbed: FinishedRun, copied: RunOfTwo) -> None:
    parent = [1]

    def update(*arguments: Any, **options: Any) -> ServerUpdate:
        parent[0] = 0
        return server_update(*arguments, **options)

    def train(run: RunContext) -> RunState:
        until(lambda: is_ready(run), "a complete round", WAIT_SECONDS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step_report, "os", types.SimpleNamespace(getppid=lambda: parent[0]))
            patch.setattr(trainer, "server_update", update)
            # Gone before it begins, and while it trains.
            for parent_pid, phase in ((2, Phase.READY), (1, Phase.TRAINING)):
                state = Trainer(run).run_until_done(parent_pid)
                assert (state.phase, state.round_num) == (phase, 1), "the round is left to the next trainer"
        return Trainer(run).run_until_done()

    copied.together(undisturbed.replay(copied), train=train)
    assert copied.outcome() == undisturbed.of.outcome()


# --- a trainer that dies in the middle of a round


@pytest.fixture(scope="module")
def three_epochs(
    undisturbed: FinishedRun, empty_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeRun]:
    """Makes runs of three server epochs a round that are sent the undisturbed run's uploads."""
    opened = []

    def make() -> RunOfTwo:
        folder = tmp_path_factory.mktemp("epochs")
        shutil.copytree(empty_run, folder / "run")
        made = RunOfTwo(folder / "run", folder / "devices")
        made.run = dataclasses.replace(made.run, config=dataclasses.replace(made.run.config, server_epochs=3))
        opened.append(made)
        return made

    yield make
    for each in opened:
        each.run.store.close()


@pytest.fixture(scope="module")
def undisturbed_epochs(undisturbed: FinishedRun, three_epochs: MakeRun) -> RunOfTwo:
    made = three_epochs()
    made.together(undisturbed.replay(made))
    return made


Stop = tuple[int, int, BaseException]


def stop_at(patch: pytest.MonkeyPatch, *stops: Stop) -> tuple[list[Stop], list[tuple[int, int]]]:
    """Make training stop at the second batch of each of these rounds and epochs, with this trouble.

    Returns:
        The stops that are left, and the rounds and epochs that training began with.
    """
    left = list(stops)
    begun: list[tuple[int, int]] = []

    def update(*arguments: Any, on_batch: Callable[[ServerProgress], None], **options: Any) -> ServerUpdate:
        begun.append((options["round_num"], options["begin"].epoch))
        batches: list[int] = []

        def stop(progress: ServerProgress) -> None:
            on_batch(progress)
            batches.append(progress.epoch)
            here = left and left[0][:2] == (options["round_num"], progress.epoch)
            if here and batches.count(progress.epoch) == 2:
                raise left.pop(0)[2]

        return server_update(*arguments, on_batch=stop, **options)

    patch.setattr(trainer, "server_update", update)
    return left, begun


STOPS = [(1, 1), (1, 2), (2, 1), (2, 3)]
# What training begins with, stopped so: what was done is not done again.
BEGUN = [(1, 1), (1, 1), (1, 2), (2, 1), (2, 1), (2, 3)]


def test_a_round_goes_on_after_its_last_epoch(
    undisturbed: FinishedRun,
    undisturbed_epochs: RunOfTwo,
    three_epochs: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disturbed = three_epochs()
    left, begun = stop_at(monkeypatch, *((*place, Killed()) for place in STOPS))

    def train(run: RunContext) -> RunState:
        while left:
            with pytest.raises(Killed):
                Trainer(run).run_until_done()
        return Trainer(run).run_until_done()

    disturbed.together(undisturbed.replay(disturbed), train=train)
    assert begun == BEGUN
    assert disturbed.outcome() == undisturbed_epochs.outcome()
    for client_id in CLIENTS:
        name = f"soft_labels/000002/{client_id}.safetensors"
        labels = [each.run.blobs.local_path(name) for each in (disturbed, undisturbed_epochs)]
        assert labels[0].read_bytes() == labels[1].read_bytes()
    kept = {path.name for path in (disturbed.run.folder / "checkpoints").iterdir()}
    assert kept == {"round-000001.safetensors", "round-000002.safetensors"}


@pytest.mark.system
def test_a_trainer_outlives_a_storage_that_does_not_answer(
    undisturbed: FinishedRun,
    undisturbed_epochs: RunOfTwo,
    three_epochs: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disturbed = three_epochs()
    troubles = (
        OperationalError("UPDATE", {}, Exception("database is locked")),
        OSError(28, "No space left on device"),
        StorageUnavailableError("the blob store does not answer"),
        LeaseLost(),
    )
    left, begun = stop_at(
        monkeypatch, *((*place, trouble) for place, trouble in zip(STOPS, troubles, strict=True))
    )
    monkeypatch.setattr(storage_errors, "_FIRST_WAIT_SECONDS", WAIT_SECONDS)
    disturbed.together(undisturbed.replay(disturbed))
    assert (left, begun) == ([], BEGUN)
    assert disturbed.outcome() == undisturbed_epochs.outcome()


def test_a_trainer_of_a_finished_run_changes_nothing(undisturbed: FinishedRun) -> None:
    before = undisturbed.of.outcome()
    assert Trainer(undisturbed.of.run).run_until_done() == undisturbed.state
    assert undisturbed.of.outcome() == before


def test_a_round_without_a_device_that_was_revoked_begins_anew(
    undisturbed: FinishedRun, three_epochs: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbed = three_epochs()
    _, begun = stop_at(monkeypatch, (2, 3, Killed()))

    def train(run: RunContext) -> RunState:
        with pytest.raises(Killed):
            Trainer(run).run_until_done()
        run.store.apply(Released())
        run.store.apply(Revoked("client-a"))
        return Trainer(run).run_until_done()

    state, _ = disturbed.together(undisturbed.replay(disturbed), train=train)
    assert begun == [(1, 1), (2, 1), (2, 1)]
    assert dict(state.answered) == {"client-a": 1, "client-b": 2}


def test_a_trainer_waits_for_another_machines_lease(copied: RunOfTwo) -> None:
    assert copied.run.store.take_lease("another machine", 60)
    assert Trainer(copied.run).run_until_done(parent_pid=0).phase is Phase.JOINING, (
        "it waits until its server is gone"
    )
    lease = Lease(copied.run.store, copied.run.folder)
    assert not lease.take()
    with pytest.raises(LeaseLost):
        lease.keep()
    copied.run.store.release_lease("another machine")
    lease.keep()
    assert copied.run.store.take_lease(lease.owner, 60) and not copied.run.store.take_lease(
        "another machine", 60
    )


def test_a_run_has_one_trainer_at_a_time(tmp_path: Path) -> None:
    with only_trainer(tmp_path, None) as alone:
        assert alone
        with only_trainer(tmp_path, parent_pid=0) as second:
            assert not second, "it waits for the first one, until its own server is gone"
    with only_trainer(tmp_path, parent_pid=0) as alone:
        assert alone


# --- a trainer that fails


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"server_epochs": 20}, "the server's loss is nan"),
        # One update, and nothing but what it left behind shows that it was one too many.
        ({"server_batch_size": 64}, "training diverged"),
        ({"server_batch_size": 64, "soft_labels": "evaluation"}, "training diverged"),
    ],
)
def test_a_training_that_diverges_fails_the_run(
    server_bundle: Path, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    config = run_config(server_lr=1e30, rounds=1, **changes)
    create_run(tmp_path / "run", server_bundle, config, TOKEN).store.close()
    failing = RunOfTwo(tmp_path / "run", tmp_path / "devices")
    caught: list[RunFailedError] = []

    def device(client_id: str) -> None:
        with pytest.raises(RunFailedError) as error:
            failing.device(client_id)
        caught.append(error.value)

    def train(run: RunContext) -> RunState:
        with pytest.raises(GKTError, match=word):
            Trainer(run).run_until_done()
        return dataclasses.replace(run.store.state(), error="")

    failing.together(*(functools.partial(device, each) for each in CLIENTS), train=train)
    status = run_status(failing.run.store)
    assert (status.phase, status.finished_rounds) == ("failed", [])
    assert word in status.error and "lower server_lr" in status.error
    to_json(status)
    assert [error.exit_code for error in caught] == [7, 7]
    assert all(word in str(error) for error in caught)
    assert not (failing.devices / CLIENTS[0] / "model.onnx").exists()
    failing.run.store.close()


def test_a_run_without_its_checkpoints_stops_by_name_and_a_person_decides(
    undisturbed: FinishedRun, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed.of.run.folder, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    run = open_run(tmp_path / "run")
    assert Trainer(run).run_until_done().phase is Phase.FINISHED, "there is nothing to train"
    run.store.apply(Grown(3, 2))
    failed = Trainer(run).run_until_done()
    assert failed.phase is Phase.FAILED
    assert failed.error.startswith("the server network is lost: the checkpoints of rounds 2 and 1")
    assert str(tmp_path) not in failed.error, "devices read it"
    # Nobody has put one back.
    run.store.apply(Resumed())
    trainer = Trainer(run)
    first = {name: value.clone() for name, value in trainer._network.state_dict().items()}
    with pytest.raises(ServerGone):
        trainer._parent_pid = 0
        trainer._run_rounds()
    assert all(torch.equal(first[name], value) for name, value in trainer._network.state_dict().items())
    kinds = [each.kind for each in run.store.state().history]
    assert kinds == ["changed", "failed", "resumed", "damaged"]
    # Another time it stops again.
    run.store.apply(Failed("of something else"))
    run.store.apply(Resumed())
    assert Trainer(run).run_until_done().error.startswith("the server network is lost")
    run.store.close()


def test_releasing_is_what_a_new_trainer_does_first(
    copied: RunOfTwo, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[Event] = []

    def noted(event: Event) -> RunState:
        applied.append(event)
        return copied.run.store.state()

    monkeypatch.setattr(copied.run.store, "apply", noted)
    Trainer(copied.run).run_until_done(parent_pid=0)
    assert applied == [Released()]


@pytest.mark.system
def test_a_round_begins_anew_whose_last_epoch_is_damaged(
    undisturbed: FinishedRun,
    undisturbed_epochs: RunOfTwo,
    three_epochs: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disturbed = three_epochs()
    _, begun = stop_at(monkeypatch, *((1, 3, Killed()) for _ in range(3)))

    def train(run: RunContext) -> RunState:
        # In the length of its header, in the header, in the weights.
        for damage in (7, 100, -100):
            with pytest.raises(Killed):
                Trainer(run).run_until_done()
            data = bytearray(run.epoch_checkpoint_path.read_bytes())
            data[damage] ^= 1
            run.epoch_checkpoint_path.write_bytes(data)
        return Trainer(run).run_until_done()

    state, _ = disturbed.together(undisturbed.replay(disturbed), train=train)
    assert begun == [(1, 1), (1, 1), (1, 1), (1, 1), (2, 1)]
    assert disturbed.outcome() == undisturbed_epochs.outcome()
    assert [each.kind for each in state.history] == ["damaged"] * 3
