"""A device whose data change while it is away: it says so at its next start, and the run goes on by rule."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from werkzeug.serving import make_server

from edge_runtime.device import Device
from edge_runtime.server_client import ServerClient
from edge_runtime.state.state_dir import StateDir
from gkt_core.data.private_data import PrivateData, load_private_data, save_private_data
from gkt_core.wire.protocol import ShardReceipt
from gkt_core.wire.shards import ShardKey
from server_app import RunContext, create_app, create_run
from server_app.rounds.state import Phase
from server_app.trainer import trainer
from tests.conftest import LONGEST_SECONDS, Gkt
from tests.edge_runtime.device_fixtures import Silent, StoppedError
from tests.edge_runtime.in_thread import answering
from tests.edge_runtime.state import test_known_samples as kinds
from tests.server_app.server_fixtures import TOKEN, private_data, run_config

pytest_plugins = ["tests.server_app.server_fixtures"]

ROUNDS = 3


@pytest.fixture
def run(server_bundle: Path, tmp_path: Path) -> Iterator[RunContext]:
    config = run_config(num_clients=1, rounds=ROUNDS)
    run = create_run(tmp_path / "run", server_bundle, config, TOKEN)
    yield run
    run.store.close()


@contextlib.contextmanager
def served(run: RunContext) -> Iterator[str]:
    """On a port of this machine."""
    server = make_server("127.0.0.1", 0, create_app(run, TOKEN, poll_seconds=0.02), threaded=True)
    with answering(server) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def trained(run: RunContext) -> Iterator[None]:
    """With its trainer, until the run is finished."""
    thread = threading.Thread(target=trainer.Trainer(run).run_until_done, daemon=True)
    thread.start()
    yield
    thread.join(LONGEST_SECONDS)
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_POLL_SECONDS", 0.005)


class Heard(Silent):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def take_part(
    url: str,
    data: PrivateData,
    state: Path,
    sleep: Callable[[float], None],
    client: type[ServerClient] = ServerClient,
) -> list[str]:
    """Take part as the command does, until the run is over or the device is stopped."""
    server, heard = client(url, TOKEN, patience_seconds=LONGEST_SECONDS), Heard()
    with (
        contextlib.closing(server),
        contextlib.closing(StateDir(state)) as folder,
        contextlib.suppress(StoppedError),
    ):
        Device(server, data, folder, client_id="client-a", num_threads=1, listener=heard, sleep=sleep).run()
    return heard.lines


def stop(seconds: float) -> None:
    raise StoppedError


def short(seconds: float) -> None:
    time.sleep(0.01)


def wait_for(run: RunContext, round_num: int) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while run.store.state().round_num < round_num:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (kinds.more, "4 samples new: trained on for a round without a teacher"),
        (kinds.fewer, "4 samples gone: forgotten"),
        (kinds.other_images, "17 samples with another image under their old id: other samples"),
        (kinds.relabelled, "3 samples with another label: trained on with that"),
        (kinds.other_file, "if this is another device's file, stop"),
        (kinds.to_train, "2 samples that were for validation: count as new"),
        (kinds.to_validation, "2 samples that were trained on are for validation now"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_between_two_rounds(
    run: RunContext, tmp_path: Path, changed: Callable[[], PrivateData], words: str
) -> None:
    data = changed()
    with served(run) as url:
        take_part(url, kinds.BEFORE, tmp_path / "state", stop)
        assert "client-a" in run.store.state().reported
        with trained(run):
            wait_for(run, 2)
            lines = take_part(url, data, tmp_path / "state", short)
        assert run.store.state().phase is Phase.FINISHED
        assert any(words in line for line in lines), lines
        assert sum("have changed since its last start" in line for line in lines) == 1
        assert (tmp_path / "state" / "model.onnx").is_file()
        client = run.store.clients()["client-a"]
    assert (client.num_examples, client.num_validation_examples) == (len(data.train), len(data.validation))
    assert run.store.reports(ROUNDS)["client-a"].num_examples == len(data.train)
    assert not run.store.state().quarantined


@pytest.mark.system
def test_when_nearly_all_is_gone(server_bundle: Path, tmp_path: Path) -> None:
    """The soft labels are those of the round before, far more than the data that are left could have."""
    config = run_config(num_clients=1, rounds=2, batch_size=128, shard_samples=256, server_epochs=1)
    run = create_run(tmp_path / "large", server_bundle, config, TOKEN)
    before = private_data(3, num_train=1200)
    left = PrivateData(kinds.of(before.train, slice(50)), before.validation, before.class_names)
    with contextlib.closing(run.store), served(run) as url:
        take_part(url, before, tmp_path / "state", stop)
        with trained(run):
            wait_for(run, 2)
            # Stopped after the join and started again: it still knows how much it had.
            take_part(url, left, tmp_path / "state", stop, client=Joined)
            lines = take_part(url, left, tmp_path / "state", short)
        assert run.store.state().phase is Phase.FINISHED, lines
        assert run.store.reports(2)["client-a"].num_examples == 50


class Joined(ServerClient):
    """Is killed before it takes soft labels."""

    def soft_labels(self, client_id: str, round_num: int, *, most_bytes: int = 0) -> bytes:
        raise StoppedError


@pytest.mark.system
@pytest.mark.parametrize("changed", [kinds.fewer, kinds.other_images, kinds.to_validation])
@pytest.mark.parametrize("uploads", ["rounds=1", "drift=1000"])
def test_where_not_every_round_has_an_upload(
    server_bundle: Path, tmp_path: Path, uploads: str, changed: Callable[[], PrivateData]
) -> None:
    """What the server holds is of samples that the device no longer has: it uploads anew, once."""
    config = run_config(num_clients=1, rounds=ROUNDS, uploads=uploads)
    run = create_run(tmp_path / "rare", server_bundle, config, TOKEN)
    data = changed()
    with contextlib.closing(run.store), served(run) as url:
        take_part(url, kinds.BEFORE, tmp_path / "state", stop)
        with trained(run):
            wait_for(run, 2)
            lines = take_part(url, data, tmp_path / "state", short)
        assert run.store.state().phase is Phase.FINISHED, lines
        reports = [run.store.reports(number)["client-a"] for number in (1, 2, 3)]
    assert [report.upload_round for report in reports] == [0, 0, 2]
    assert [report.num_examples for report in reports] == [12, len(data.train), len(data.train)]


class Cut(ServerClient):
    """Is killed when it has sent one shard of the second round."""

    def put_shard(self, key: ShardKey, data: bytes, *, compressed: bool) -> ShardReceipt:
        if key.round_num == 2 and key.index == 1:
            raise StoppedError
        return super().put_shard(key, data, compressed=compressed)


@pytest.mark.system
@pytest.mark.parametrize("changed", [kinds.fewer, kinds.more, kinds.other_images])
def test_in_the_middle_of_an_upload(
    run: RunContext, tmp_path: Path, changed: Callable[[], PrivateData]
) -> None:
    """What the server holds of the open part was made of the old samples."""
    state, data = tmp_path / "state", changed()
    with served(run) as url, trained(run):
        take_part(url, kinds.BEFORE, state, short, client=Cut)
        assert [shard.key.index for shard in run.store.shards(2, "client-a")] == [0]
        heard: list[set[int]] = []

        class Watched(ServerClient):
            """Notes which ids leave in the second round."""

            def put_shard(self, key: ShardKey, data: bytes, *, compressed: bool) -> ShardReceipt:
                receipt = super().put_shard(key, data, compressed=compressed)
                if key.round_num == 2 and key.split == "train":
                    heard.append({key.index})
                    assert not receipt.already_stored
                return receipt

        take_part(url, data, state, short, client=Watched)
    assert run.store.state().phase is Phase.FINISHED
    assert [min(each) for each in heard] == list(range(-(-len(data.train) // 8)))
    assert run.store.reports(2)["client-a"].num_examples == len(data.train)


def test_the_command_says_it(run: RunContext, gkt: Gkt, tmp_path: Path) -> None:
    file, state = tmp_path / "mine.npz", tmp_path / "state"
    save_private_data(file, kinds.BEFORE)
    with served(run) as url:
        take_part(url, load_private_data(file), state, stop)
        save_private_data(file, kinds.more())
        with trained(run):
            done = gkt(
                "edge", "run", "--server", url, "--token", TOKEN, "--data", file, "--client-id", "client-a",
                "--state-dir", state,
            )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stderr.split())
    assert "the data of this device have changed since its last start; as they were: 17 samples" in text
    assert "4 samples new: trained on for a round without a teacher" in text
    assert np.isfinite(run.store.reports(ROUNDS)["client-a"].loss)
