"""Whole runs in one process: real devices and the real trainer, undisturbed and disturbed.

What disturbs a run - other orders of arrival, a trainer or a device that dies - must not change one bit of
what comes out. Every disturbed run is therefore compared with an undisturbed one, byte by byte.
"""

import contextlib
import dataclasses
import itertools
import re
import shutil
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import onnxruntime
import pytest
import torch
from sqlalchemy.exc import OperationalError
from torch import nn

from edge_runtime import open_backend
from edge_runtime.device import Device
from edge_runtime.server_client import ServerClient
from edge_runtime.state import state_dir
from edge_runtime.state.state_dir import DeviceState, StateDir
from gkt_core.bundle.manifest import load_bundle
from gkt_core.data.augment import to_float_nchw
from gkt_core.errors import (
    ArtifactError,
    DatasetError,
    GKTError,
    InputError,
    ProtocolError,
    RoundError,
    RunFailedError,
    StorageUnavailableError,
)
from gkt_core.nn import CombinedNetwork, build_edge_network, build_server_network
from gkt_core.nn.checkpoint import load_checkpoint, save_checkpoint
from gkt_core.nn.optimizers import large_network_optimizer
from gkt_core.rounds.sampling import sample_clients
from gkt_core.wire.protocol import ErrorBody, JoinRequest, Task, from_json, to_json
from server_app import create_app, create_run, open_run, storage_errors
from server_app.rounds.state import Claimed, Failed, Joined, Phase, Released, Revoked, RulesChanged
from server_app.run_folder import SERVER_WEIGHTS_BLOB
from server_app.status import run_status
from server_app.trainer import step_report, trainer
from server_app.trainer.lease import Lease, LeaseLost, only_trainer
from server_app.trainer.trainer import Trainer
from tests.server_app.server_fixtures import CLIENTS, NUM_CLASSES, TOKEN, private_data, run_config

pytest_plugins = ["tests.server_app.server_fixtures"]

DATA = {client_id: private_data(seed, 12 + 3 * seed) for seed, client_id in enumerate(CLIENTS)}
WAIT_SECONDS = 0.005


def optimizer_of(network, config):
    return large_network_optimizer(network.parameters(), config, config.server_lr)


class Killed(BaseException):
    """What ends a process at once: no error handling of ours may see it."""


class Silent:
    """A listener that shows nothing."""

    def phase(self, name, round_num, num_images):
        pass

    def images(self, num_images):
        pass

    def note(self, line):
        pass


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One request and its answer."""

    method: str
    path: str
    headers: dict
    sent: bytes
    status: int
    received: bytes


class Wire(httpx.BaseTransport):
    """The application without a socket; keeps what passes, and may be cut."""

    def __init__(self, app, passed, cut=lambda when, exchange: None):
        self._app, self._passed, self._cut = httpx.WSGITransport(app=app), passed, cut

    def handle_request(self, request):
        call = f"{request.method} {request.url.path}"
        self._cut("before", call)
        response = self._app.handle_request(request)
        response.read()
        self._passed.append(
            Exchange(
                request.method,
                request.url.path,
                dict(request.headers),
                request.content,
                response.status_code,
                response.content,
            )
        )
        self._cut("after", call)
        return response


class RunOfTwo:
    """A run, its devices' folders and everything that went over the wire."""

    def __init__(self, folder, devices_folder):
        self.run, self.devices = open_run(folder), devices_folder
        self.app = create_app(self.run, TOKEN, poll_seconds=0.01)
        self.exchanges = {client_id: [] for client_id in CLIENTS}
        self.counted = {}

    def device(self, client_id, cut=lambda when, call: None):
        """Take part as this device does, in a process that ends with the call."""
        folder = StateDir(self.devices / client_id)
        wire = Wire(self.app, self.exchanges[client_id], cut)
        server = ServerClient("http://server", TOKEN, transport=wire, patience_seconds=0)
        try:
            return Device(
                server,
                DATA[client_id],
                folder,
                client_id=client_id,
                num_threads=1,
                listener=Silent(),
                sleep=lambda seconds: threading.Event().wait(WAIT_SECONDS),
            ).run()
        finally:
            sent, received = self.counted.get(client_id, (0, 0))
            self.counted[client_id] = (sent + server.upload_bytes, received + server.download_bytes)
            server.close()
            folder.close()

    def together(self, *devices, train=lambda run: Trainer(run).run_until_done()):
        """Run devices in threads and the trainer in this one, until all have ended."""

        def guarded(device):
            try:
                return device()
            except BaseException as error:
                # Else the trainer would wait for ever.
                with contextlib.suppress(RoundError):
                    self.run.store.apply(Failed(f"a device ended: {error!r}"))
                raise

        with ThreadPoolExecutor(len(devices)) as threads:
            results = [threads.submit(guarded, device) for device in devices]
            try:
                state = train(self.run)
            except BaseException as error:
                with contextlib.suppress(RoundError):
                    self.run.store.apply(Failed(f"the trainer ended: {error!r}"))
                raise
            finally:
                problems = [problem for result in results if (problem := result.exception()) is not None]
                for problem in problems:
                    # Says more than that the run failed, unless it is what the device was told.
                    if not isinstance(problem, RunFailedError):
                        raise problem
        for problem in problems:
            raise problem
        assert state.error == ""
        return state, [result.result() for result in results]

    def train(self, **options):
        return self.together(*(lambda each=each: self.device(each) for each in CLIENTS), **options)

    def outcome(self):
        """Everything that a run leaves behind, as bytes."""
        checkpoint = self.run.checkpoint_path(self.run.config.rounds).read_bytes()
        weights = self.run.blobs.local_path(SERVER_WEIGHTS_BLOB).read_bytes()
        return checkpoint, weights

    def models(self):
        return [(self.devices / client_id / "model.onnx").read_bytes() for client_id in CLIENTS]


@pytest.fixture(scope="module", autouse=True)
def _impatient():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_POLL_SECONDS", WAIT_SECONDS)
        yield


@pytest.fixture
def copy_of(tmp_path):
    """Copies a run that was never opened; all copies have the same run id."""
    opened = []

    def copy(folder, name="run"):
        shutil.copytree(folder, tmp_path / name)
        opened.append(RunOfTwo(tmp_path / name, tmp_path / f"{name}-devices"))
        return opened[-1]

    yield copy
    for each in opened:
        each.run.store.close()


@pytest.fixture(scope="module")
def undisturbed(empty_run, tmp_path_factory):
    """The run that all others are compared with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(empty_run, folder / "run")
    found = RunOfTwo(folder / "run", folder / "devices")
    found.state, found.results = found.train()
    yield found
    found.run.store.close()


# --- an undisturbed run


def test_the_run_is_finished_and_the_devices_know_it(undisturbed):
    assert undisturbed.state.phase is Phase.FINISHED
    for client_id, result in zip(CLIENTS, undisturbed.results, strict=True):
        assert (result.client_id, result.rounds) == (client_id, 2)
        assert result.run_id == undisturbed.run.store.run_id
        assert result.model == str(undisturbed.devices / client_id / "model.onnx")


def test_each_devices_model_is_its_extractor_and_the_servers_network(undisturbed):
    manifest = undisturbed.run.bundle.manifest
    server = build_server_network(manifest.server_network, NUM_CLASSES)
    optimizer = optimizer_of(server, undisturbed.run.config)
    extra = load_checkpoint(undisturbed.run.checkpoint_path(2), server, optimizer)
    assert extra == {"round_num": 2, "run_id": undisturbed.run.store.run_id}
    logits = {}
    for client_id, data in DATA.items():
        folder = undisturbed.devices / client_id
        backend = open_backend(
            load_bundle(folder / "bundle", manifest.engine_files("portable")),
            checkpoint=folder / "checkpoint-000002",
            num_threads=1,
            learning_rate=1e-3,
        )
        edge = build_edge_network(manifest.edge_network, NUM_CLASSES)
        parameters = {name: torch.from_numpy(value) for name, value in backend.parameters().items()}
        found = edge.load_state_dict(parameters, strict=False)
        assert not found.unexpected_keys
        assert all(name.endswith("num_batches_tracked") for name in found.missing_keys)
        combined = CombinedNetwork(edge.extractor, server, edge.normalise).eval()
        images = to_float_nchw(data.validation.images)
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        (logits[client_id],) = session.run(["logits"], {"images": images})
        with torch.no_grad():
            expected = combined(torch.from_numpy(images)).numpy()
        assert np.isfinite(logits[client_id]).all() and logits[client_id].shape == (5, NUM_CLASSES)
        assert np.abs(logits[client_id] - expected).max() < 1e-4
    assert undisturbed.models()[0] != undisturbed.models()[1], "each device keeps its own extractor"


def test_what_no_later_round_needs_is_gone(undisturbed):
    folder = undisturbed.run.folder
    files = {
        str(path.relative_to(folder / "blobs")) for path in (folder / "blobs").rglob("*") if path.is_file()
    }
    assert files == {
        "model/combined_template.onnx",
        "model/server.safetensors",
        "soft_labels/000002/client-a.safetensors",
        "soft_labels/000002/client-b.safetensors",
        "watch/000002/client-a.safetensors",
        "watch/000002/client-b.safetensors",
        "watch/first/client-a.safetensors",
        "watch/first/client-b.safetensors",
    }
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["round-000002.safetensors"]
    for client_id in CLIENTS:
        found = {path.name for path in (undisturbed.devices / client_id).iterdir()}
        assert found == {"bundle", "checkpoint-000002", "lock", "model.onnx", "state.json"}


def test_the_metrics_of_a_run_are_plausible(undisturbed):
    status = run_status(undisturbed.run.store)
    assert [metrics.round_num for metrics in status.finished_rounds] == [1, 2]
    for metrics in status.finished_rounds:
        assert metrics.num_examples == 12 + 15
        for name in ("train_accuracy", "validation_accuracy", "edge_accuracy"):
            assert 0 <= getattr(metrics, name) <= 1
        for name in ("train_loss", "validation_loss", "edge_loss"):
            assert 0.2 < getattr(metrics, name) < 20
        assert metrics.server_samples_per_second > 0 and metrics.edge_images_per_second > 0
        assert metrics.seconds == pytest.approx(metrics.edge_seconds + metrics.server_seconds)
        assert metrics.edge_seconds > 0 and metrics.server_seconds > 0
    assert [client.last_reported_round for client in status.clients] == [2, 2]


KINDS = {
    "upload/shards": r"PUT .*/shards/\w+/\d+",
    "upload/reports": r"PUT .*/report",
    "download/bundle": r"GET .*/artifacts/[\w.]+",
    "download/soft_labels": r"GET .*/soft-labels",
    "download/model": r"GET .*/model/template",
}


def test_the_servers_traffic_is_what_the_devices_counted(undisturbed):
    exchanges = [each for client_id in CLIENTS for each in undisturbed.exchanges[client_id]]
    assert all(each.status == 200 for each in exchanges)
    expected = dict.fromkeys(KINDS, 0)
    for each in exchanges:
        for kind, pattern in KINDS.items():
            if re.fullmatch(pattern, f"{each.method} {each.path}".replace(".onnx", "")):
                expected[kind] += len(each.sent if kind.startswith("upload") else each.received)
    assert run_status(undisturbed.run.store).traffic == expected
    for client_id, result in zip(CLIENTS, undisturbed.results, strict=True):
        passed = undisturbed.exchanges[client_id]
        counted = sum(len(each.sent) for each in passed), sum(len(each.received) for each in passed)
        assert (result.upload_bytes, result.download_bytes) == undisturbed.counted[client_id] == counted
    joins = sum(
        len(to_json(JoinRequest(1, len(data.train), 5, NUM_CLASSES, "portable"))) for data in DATA.values()
    )
    sent = sum(sent for sent, _ in undisturbed.counted.values())
    assert expected["upload/shards"] + expected["upload/reports"] + joins == sent


# --- the order in which things arrive


def replay(undisturbed, target, order):
    """Send the undisturbed run's uploads once more, in another order."""
    uploads = [
        each
        for client_id in CLIENTS
        for each in undisturbed.exchanges[client_id]
        if each.method == "PUT" and "/rounds/" in each.path
    ]
    joins = [
        each
        for client_id in CLIENTS
        for each in undisturbed.exchanges[client_id]
        if each.method == "PUT" and re.fullmatch(r".*/clients/[^/]+", each.path)
    ]
    task = f"/v1/runs/{target.run.store.run_id}/clients/{CLIENTS[0]}/task"

    def send():
        with httpx.Client(transport=httpx.WSGITransport(app=target.app), base_url="http://server") as http:
            http.headers["Authorization"] = f"Bearer {TOKEN}"
            for each in order(joins):
                http.put(each.path, content=each.sent).raise_for_status()
            for round_num in (1, 2):
                while from_json(Task, http.get(task).content).round_num != round_num or (
                    target.run.store.state().phase not in (Phase.COLLECTING, Phase.FAILED)
                ):
                    threading.Event().wait(WAIT_SECONDS)
                parts = [each for each in uploads if f"/rounds/{round_num}/" in each.path]
                # A device's report comes behind its shards in any order.
                for each in sorted(order(parts), key=lambda each: each.path.endswith("/report")):
                    headers = {
                        name: value
                        for name, value in each.headers.items()
                        if name in ("x-content-sha256", "content-encoding")
                    }
                    http.put(each.path, content=each.sent, headers=headers).raise_for_status()

    return send


@pytest.mark.parametrize(
    "order",
    [lambda parts: parts[::-1], lambda parts: parts[::2] + parts[1::2]],
    ids=["reversed", "interleaved"],
)
def test_the_order_of_uploads_changes_nothing(undisturbed, empty_run, copy_of, order):
    other = copy_of(empty_run)
    other.together(replay(undisturbed, other, order))
    assert other.outcome() == undisturbed.outcome()


def test_devices_that_take_part_again_end_with_the_same_bytes(undisturbed, empty_run, copy_of):
    other = copy_of(empty_run)
    other.train()
    assert other.outcome() == undisturbed.outcome()
    assert other.models() == undisturbed.models()


# --- a trainer that dies


def killed_while(moment, run, patch):
    """Make the next trainer die at this moment of round 2."""
    real_update, real_metrics = trainer.server_update, run.store.add_round_metrics

    def update(*arguments, round_num, on_batch, **options):
        def die(progress):
            on_batch(progress)
            if round_num == 2 and moment == "the first batch":
                raise Killed

        return real_update(*arguments, round_num=round_num, on_batch=die, **options)

    def metrics(round_num, values):
        real_metrics(round_num, values)
        if round_num == 2 and moment == "everything but the last word":
            raise Killed

    def checkpoint(*arguments):
        if arguments[3]["round_num"] == 2 and moment == "the soft labels":
            raise Killed
        save_checkpoint(*arguments)

    patch.setattr(trainer, "server_update", update)
    patch.setattr(trainer, "save_checkpoint", checkpoint)
    patch.setattr(run.store, "add_round_metrics", metrics)


@pytest.mark.parametrize("moment", ["the first batch", "the soft labels", "everything but the last word"])
def test_a_round_that_a_trainer_left_is_trained_again(undisturbed, empty_run, copy_of, moment):
    other = copy_of(empty_run)

    def train(run):
        with pytest.MonkeyPatch.context() as patch:
            killed_while(moment, run, patch)
            with pytest.raises(Killed):
                Trainer(run).run_until_done()
        assert run.store.state().phase is Phase.TRAINING
        return Trainer(run).run_until_done()

    other.together(replay(undisturbed, other, list), train=train)
    assert other.outcome() == undisturbed.outcome()


def test_a_round_that_was_only_claimed_is_trained(undisturbed, empty_run, copy_of):
    other = copy_of(empty_run)

    def train(run):
        while run.store.state().phase is not Phase.READY:
            threading.Event().wait(WAIT_SECONDS)
        run.store.apply(Claimed(1))
        return Trainer(run).run_until_done()

    other.together(replay(undisturbed, other, list), train=train)
    assert other.outcome() == undisturbed.outcome()


def test_a_trainer_of_a_finished_run_changes_nothing(undisturbed):
    before = undisturbed.outcome()
    assert Trainer(undisturbed.run).run_until_done() == undisturbed.state
    assert undisturbed.outcome() == before


@pytest.mark.parametrize("moment", [Phase.READY, Phase.TRAINING])
def test_a_trainer_whose_server_is_gone_trains_no_more(undisturbed, empty_run, copy_of, moment):
    other = copy_of(empty_run)
    parent, real_update = [1], trainer.server_update

    def update(*arguments, **options):
        parent[0] = 0
        return real_update(*arguments, **options)

    def train(run):
        while run.store.state().phase is not Phase.READY:
            threading.Event().wait(WAIT_SECONDS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step_report, "os", types.SimpleNamespace(getppid=lambda: parent[0]))
            patch.setattr(trainer, "server_update", update)
            state = Trainer(run).run_until_done(parent_pid=2 if moment is Phase.READY else 1)
        assert (state.phase, state.round_num) == (moment, 1), "the round is left to the next trainer"
        return Trainer(run).run_until_done()

    other.together(replay(undisturbed, other, list), train=train)
    assert other.outcome() == undisturbed.outcome()


# --- a trainer that dies in the middle of a round


@pytest.fixture(scope="module")
def three_epochs(undisturbed, empty_run, tmp_path_factory):
    """Makes runs of three server epochs a round that are sent the undisturbed run's uploads."""
    opened = []

    def make():
        folder = tmp_path_factory.mktemp("epochs")
        shutil.copytree(empty_run, folder / "run")
        found = RunOfTwo(folder / "run", folder / "devices")
        found.run = dataclasses.replace(
            found.run, config=dataclasses.replace(found.run.config, server_epochs=3)
        )
        opened.append(found)
        return found

    yield make
    for each in opened:
        each.run.store.close()


@pytest.fixture(scope="module")
def undisturbed_epochs(undisturbed, three_epochs):
    found = three_epochs()
    found.together(replay(undisturbed, found, list))
    return found


def stop_at(patch, trouble, round_num, epoch):
    """Make training stop once at the second batch of this epoch; a list of the epochs that it began with."""
    real, begun, left = trainer.server_update, [], [trouble]

    def update(*arguments, on_batch, **options):
        begun.append((options["round_num"], options["first_epoch"]))
        batches = []

        def stop(progress):
            on_batch(progress)
            batches.append(progress)
            here = [each for each in batches if each.epoch == epoch]
            if left and options["round_num"] == round_num and len(here) == 2:
                raise left.pop()

        return real(*arguments, on_batch=stop, **options)

    patch.setattr(trainer, "server_update", update)
    return begun


@pytest.mark.parametrize(("round_num", "epoch"), [(1, 1), (1, 2), (2, 1), (2, 3)])
def test_a_round_goes_on_after_its_last_epoch(
    undisturbed, undisturbed_epochs, three_epochs, monkeypatch, round_num, epoch
):
    other = three_epochs()
    begun = stop_at(monkeypatch, Killed(), round_num, epoch)

    def train(run):
        with pytest.raises(Killed):
            Trainer(run).run_until_done()
        return Trainer(run).run_until_done()

    other.together(replay(undisturbed, other, list), train=train)
    assert begun == sorted([(1, 1), (2, 1), (round_num, epoch)]), "what was done is not done again"
    assert other.outcome() == undisturbed_epochs.outcome()
    labels = [
        blobs.local_path(f"soft_labels/000002/{each}.safetensors").read_bytes()
        for blobs in (other.run.blobs, undisturbed_epochs.run.blobs)
        for each in CLIENTS
    ]
    assert labels[:2] == labels[2:]
    left = {path.name for path in (other.run.folder / "checkpoints").iterdir()}
    assert left == {"round-000002.safetensors"}


@pytest.mark.parametrize(
    "trouble",
    [
        OperationalError("UPDATE", {}, Exception("database is locked")),
        OSError(28, "No space left on device"),
        StorageUnavailableError("the blob store does not answer"),
        LeaseLost(),
    ],
)
def test_a_trainer_outlives_a_storage_that_does_not_answer(
    undisturbed, undisturbed_epochs, three_epochs, monkeypatch, trouble
):
    other = three_epochs()
    begun = stop_at(monkeypatch, trouble, 1, 2)
    monkeypatch.setattr(storage_errors, "_FIRST_WAIT_SECONDS", WAIT_SECONDS)
    other.together(replay(undisturbed, other, list))
    assert begun == [(1, 1), (1, 2), (2, 1)]
    assert other.outcome() == undisturbed_epochs.outcome()


def test_a_round_without_a_device_that_was_revoked_begins_anew(undisturbed, three_epochs, monkeypatch):
    other = three_epochs()
    begun = stop_at(monkeypatch, Killed(), 2, 3)

    def train(run):
        with pytest.raises(Killed):
            Trainer(run).run_until_done()
        run.store.apply(Released())
        run.store.apply(Revoked("client-a"))
        return Trainer(run).run_until_done()

    state, _ = other.together(replay(undisturbed, other, list), train=train)
    assert begun == [(1, 1), (2, 1), (2, 1)]
    assert dict(state.answered) == {"client-a": 1, "client-b": 2}


def test_a_trainer_waits_for_another_machines_lease(empty_run, copy_of):
    other = copy_of(empty_run)
    assert other.run.store.take_lease("another machine", 60)
    assert Trainer(other.run).run_until_done(parent_pid=0).phase is Phase.JOINING, (
        "it waits until its server is gone"
    )
    lease = Lease(other.run.store, other.run.folder)
    assert not lease.take()
    with pytest.raises(LeaseLost):
        lease.keep()
    other.run.store.release_lease("another machine")
    lease.keep()
    assert other.run.store.take_lease(lease.owner, 60) and not other.run.store.take_lease(
        "another machine", 60
    )


def test_a_run_has_one_trainer_at_a_time(tmp_path):
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
def test_a_training_that_diverges_fails_the_run(server_bundle, tmp_path, changes, word):
    config = run_config(server_lr=1e30, rounds=1, **changes)
    create_run(tmp_path / "run", server_bundle, config, TOKEN).store.close()
    failing = RunOfTwo(tmp_path / "run", tmp_path / "devices")
    caught = []

    def device(client_id):
        with pytest.raises(RunFailedError) as error:
            failing.device(client_id)
        caught.append(error.value)

    def train(run):
        with pytest.raises(GKTError, match=word):
            Trainer(run).run_until_done()
        return dataclasses.replace(run.store.state(), error="")

    failing.together(*(lambda each=each: device(each) for each in CLIENTS), train=train)
    status = run_status(failing.run.store)
    assert (status.phase, status.finished_rounds) == ("failed", [])
    assert word in status.error and "lower server_lr" in status.error
    to_json(status)
    assert [error.exit_code for error in caught] == [7, 7]
    assert all(word in str(error) for error in caught)
    assert not (failing.devices / CLIENTS[0] / "model.onnx").exists()
    failing.run.store.close()


# --- devices that are drawn, and devices that are late


def test_devices_that_are_drawn_keep_their_last_soft_labels(server_bundle, tmp_path):
    """Each device distils from the answer to the very view that it sent when it was last drawn."""
    config = run_config(client_fraction=0.5, rounds=5, seed=4)
    create_run(tmp_path / "run", server_bundle, config, TOKEN).store.close()
    drawn = [sample_clients(CLIENTS, 0.5, seed=4, round_num=each)[0] for each in range(1, 6)]
    assert any(first == second for first, second in itertools.pairwise(drawn)) and len(set(drawn)) == 2
    sampled = RunOfTwo(tmp_path / "run", tmp_path / "devices")
    state, _ = sampled.train()
    last = {each: 5 - drawn[::-1].index(each) for each in CLIENTS}
    assert dict(state.answered) == last
    for client_id in CLIENTS:
        passed = sampled.exchanges[client_id]
        asked = [each.path.split("/")[5] for each in passed if each.path.endswith("/soft-labels")]
        rounds = [number for number, each in enumerate(drawn, start=1) if each == client_id]
        assert asked == [str(number) for number in rounds[:-1]], "each answer once, in the round after"
        sent = {each.path.split("/")[5] for each in passed if "/shards/" in each.path}
        assert sent == {str(number) for number in rounds}
        assert all(each.status == 200 for each in passed)
    left = {
        str(path.relative_to(tmp_path / "run" / "blobs"))
        for path in (tmp_path / "run").rglob("soft_labels/*/*")
    }
    assert left == {f"soft_labels/{last[each]:06d}/{each}.safetensors" for each in CLIENTS}
    assert all(len(model) > 1000 for model in sampled.models())
    sampled.run.store.close()


def test_a_round_goes_on_without_a_device_that_is_late(empty_run, copy_of):
    """It vanishes in the middle of its upload, comes back after the deadline, and ends with a model."""
    other = copy_of(empty_run)
    other.run.store.apply(RulesChanged(1, 0.3))
    vanished = []

    def cut(when, call):
        if when == "before" and "/rounds/1/" in call and call.endswith("/shards/train/1"):
            vanished.append(call)
            while other.run.store.state().round_num == 1:
                threading.Event().wait(WAIT_SECONDS)
            # From here on it has time.
            other.run.store.apply(RulesChanged(1, 0.0))

    def late():
        return other.device("client-a", cut)

    state, results = other.together(late, lambda: other.device("client-b"))
    assert len(vanished) == 1
    assert state.phase is Phase.FINISHED and dict(state.answered)["client-b"] == 2
    refused = [each for each in other.exchanges["client-a"] if each.status != 200]
    assert [each.status for each in refused] == [409]
    assert from_json(ErrorBody, refused[0].received).error == "RoundClosedError"
    first = run_status(other.run.store).finished_rounds[0]
    assert first.num_examples == len(DATA["client-b"].train), "half an upload is none"
    assert [result.rounds for result in results] == [2, 2]
    assert len(other.models()[0]) > 1000


def test_a_device_sends_only_what_is_missing(undisturbed, empty_run, copy_of):
    other = copy_of(empty_run)
    died = []

    def cut(when, call):
        if not died and when == "after" and call.endswith("/rounds/2/clients/client-a/shards/train/0"):
            died.append(call)
            raise Killed(call)

    def device():
        with contextlib.suppress(Killed):
            return other.device("client-a", cut)
        return other.device("client-a")

    other.together(device, lambda: other.device("client-b"))
    sent = [each.path for each in other.exchanges["client-a"] if "/shards/" in each.path]
    assert len(died) == 1 and len(sent) == len(set(sent)), "no shard was sent twice"
    assert other.outcome() == undisturbed.outcome()


# --- a device that dies


MOMENTS = (
    ("before", r"PUT .*/clients/client-a"),
    ("before", r"PUT .*/rounds/1/.*/report"),
    ("after", r"PUT .*/rounds/1/.*/report"),
    ("before", r"GET .*/rounds/1/.*/soft-labels"),
    ("before", r"PUT .*/rounds/2/.*/shards/train/0"),
    ("after", r"PUT .*/rounds/2/.*/shards/train/1"),
    ("before", r"GET .*/model/template"),
)


def test_a_device_that_dies_again_and_again(undisturbed, empty_run, copy_of, monkeypatch):
    other = copy_of(empty_run)
    left = list(MOMENTS)

    def cut(when, call):
        for moment in left:
            if moment[0] == when and re.fullmatch(moment[1], call):
                left.remove(moment)
                raise Killed(call)

    # Once also between the weights of round 2 and the note that they are there.
    real_write, not_yet = state_dir.write_atomically, [True]

    def write(path, data):
        if path.name == "state.json" and path.parent.name == "client-a" and b'"trained_round": 2' in data:
            while not_yet:
                not_yet.clear()
                raise Killed(path.name)
        real_write(path, data)

    monkeypatch.setattr(state_dir, "write_atomically", write)
    deaths = []

    def device():
        while True:
            try:
                return other.device("client-a", cut)
            except Killed as death:
                deaths.append(death)

    other.together(device, lambda: other.device("client-b"))
    assert left == [] and len(deaths) == len(MOMENTS) + 1
    assert other.outcome() == undisturbed.outcome()
    assert other.models() == undisturbed.models()
    for round_num in (1, 2):
        reports = other.run.store.reports(round_num), undisturbed.run.store.reports(round_num)
        for client_id in CLIENTS:
            mine, theirs = (found[client_id] for found in reports)
            assert (mine.loss, mine.accuracy) == (theirs.loss, theirs.accuracy)
            assert mine.train_seconds > 0 and mine.images_per_second > 0


# --- folders that belong to something else


@pytest.fixture
def folder_of_round_2(undisturbed, tmp_path):
    """A copy of the state folder that client-a ended with."""
    shutil.copytree(undisturbed.devices / "client-a", tmp_path / "devices" / "client-a")
    return tmp_path / "devices" / "client-a"


def test_a_state_folder_of_another_run_is_refused(folder_of_round_2, server_bundle, tmp_path):
    create_run(tmp_path / "run", server_bundle, run_config(), TOKEN).store.close()
    other = RunOfTwo(tmp_path / "run", folder_of_round_2.parent)
    with pytest.raises(ArtifactError, match=r"belongs to client-a in run-.*choose another --state-dir"):
        other.device("client-a")
    assert other.run.store.state().clients == ()
    other.run.store.close()


def test_a_state_folder_of_another_device_is_refused(folder_of_round_2, undisturbed):
    folder_of_round_2.rename(folder_of_round_2.with_name("client-b"))
    undisturbed_again = RunOfTwo(undisturbed.run.folder, folder_of_round_2.parent)
    with pytest.raises(ArtifactError, match=r"belongs to client-a in .*not to client-b"):
        undisturbed_again.device("client-b")
    undisturbed_again.run.store.close()


def test_a_lost_state_folder_is_no_trained_device(undisturbed, tmp_path):
    """A new folder holds fresh weights: no model must be made of them."""
    again = RunOfTwo(undisturbed.run.folder, tmp_path / "devices")
    with pytest.raises(ProtocolError, match="after round 0"):
        again.device("client-a")
    assert not (tmp_path / "devices" / "client-a" / "model.onnx").exists()
    again.run.store.close()


def test_a_device_may_take_its_model_again(undisturbed, folder_of_round_2):
    (folder_of_round_2 / "model.onnx").unlink()
    again = RunOfTwo(undisturbed.run.folder, folder_of_round_2.parent)
    result = again.device("client-a")
    again.run.store.close()
    assert result.rounds == 2
    assert (folder_of_round_2 / "model.onnx").read_bytes() == undisturbed.models()[0]


def test_weights_that_are_gone_or_cut_short_are_refused(folder_of_round_2, undisturbed):
    again = RunOfTwo(undisturbed.run.folder, folder_of_round_2.parent)
    weights = folder_of_round_2 / "checkpoint-000002"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArtifactError):
        again.device("client-a")
    weights.unlink()
    with pytest.raises(ArtifactError):
        again.device("client-a")
    again.run.store.close()


def test_a_damaged_bundle_is_downloaded_again(folder_of_round_2, undisturbed):
    again = RunOfTwo(undisturbed.run.folder, folder_of_round_2.parent)
    (folder_of_round_2 / "bundle" / "predict.onnx").write_bytes(b"damaged")
    again.device("client-a")
    taken = [each.path for each in again.exchanges["client-a"] if "/artifacts/" in each.path]
    again.run.store.close()
    assert [path.rsplit("/", 1)[1] for path in taken] == ["predict.onnx"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"run_id": "run-1"}',
        b'{"run_id": 1, "client_id": "client-a"}',
        b'{"run_id": "run-1", "client_id": "client-a", "trained_round": "2"}',
        b'{"run_id": "run-1", "client_id": "client-a", "trained_round": -1}',
    ],
)
def test_a_state_file_that_cannot_be_read(tmp_path, content):
    (tmp_path / "state.json").write_bytes(content)
    unreadable = pytest.raises(ArtifactError, match=r"state\.json cannot be read")
    with contextlib.closing(StateDir(tmp_path)) as folder, unreadable:
        folder.state("run-1", "client-a")


def test_a_state_folder_is_one_devices_at_a_time(tmp_path):
    first = StateDir(tmp_path / "device")
    with pytest.raises(InputError, match=r"another gkt edge run uses .*--state-dir"):
        StateDir(tmp_path / "device")
    first.close()
    StateDir(tmp_path / "device").close()


def test_a_state_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "device"):
        with pytest.raises(InputError, match="cannot use the state folder"):
            StateDir(path)


def test_a_state_is_kept_with_its_weights_and_older_ones_go(tmp_path):
    folder = StateDir(tmp_path)
    assert folder.state("run-1", "client-a") == DeviceState("run-1", "client-a", 0)
    for round_num in (1, 2):
        state = DeviceState("run-1", "client-a", round_num)
        folder.save(state, lambda path: path.write_bytes(b"weights"))
        assert folder.state("run-1", "client-a") == state
    assert sorted(path.name for path in tmp_path.glob("checkpoint*")) == ["checkpoint-000002"]
    folder.close()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"class_names": ("ant", "bee")}, ArtifactError),
        ({"train": "16 px"}, DatasetError),
        ({"validation": "none"}, DatasetError),
    ],
)
def test_data_that_does_not_fit_never_joins(empty_run, copy_of, monkeypatch, changes, error):
    data = DATA["client-a"]
    if "train" in changes:
        changes = {"train": dataclasses.replace(data.train, images=np.zeros((12, 16, 16, 3), np.uint8))}
    if "validation" in changes:
        empty = {name: getattr(data.validation, name)[:0] for name in ("images", "labels", "sample_ids")}
        changes = {"validation": type(data.validation)(**empty)}
    other = copy_of(empty_run)
    monkeypatch.setitem(DATA, "client-a", dataclasses.replace(data, **changes))
    with pytest.raises(error):
        other.device("client-a")
    assert other.run.store.state().clients == ()


def test_a_task_that_this_version_does_not_know(empty_run, copy_of, monkeypatch):
    other = copy_of(empty_run)
    monkeypatch.setattr(ServerClient, "join", lambda *_: Task("dance", 1, 0, 0.0, "why not"))
    with pytest.raises(ProtocolError, match="unknown task 'dance'"):
        other.device("client-a")


def test_a_device_of_a_failed_run_says_why(empty_run, copy_of):
    other = copy_of(empty_run)
    other.run.store.apply(Joined("client-a"))
    other.run.store.apply(Failed("disk full"))
    with pytest.raises(RunFailedError, match="the server stopped the run: disk full"):
        other.device("client-a")


# --- checkpoints


@pytest.fixture
def trained():
    """A small network and an optimizer that has made two steps."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    optimizer = optimizer_of(network, run_config())
    for seed in (1, 2):
        images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        network(images).square().sum().backward()
        optimizer.step()
    return types.SimpleNamespace(network=network, optimizer=optimizer)


def fresh(like):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    return types.SimpleNamespace(network=network, optimizer=optimizer_of(network, run_config()))


def test_a_checkpoint_restores_network_and_optimizer(trained, tmp_path):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, trained.network, trained.optimizer, {"round_num": 7})
    other = fresh(trained)
    assert load_checkpoint(path, other.network, other.optimizer) == {"round_num": 7}
    for name, value in trained.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name])
    mine, theirs = (each.optimizer.state_dict()["state"] for each in (trained, other))
    assert mine.keys() == theirs.keys() and mine
    for index, values in mine.items():
        assert set(values) == {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
        for name, value in values.items():
            assert torch.equal(value, theirs[index][name])
    save_checkpoint(tmp_path / "again", other.network, other.optimizer, {"round_num": 7})
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(trained, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", trained.network, trained.optimizer, {})
    other = fresh(trained)
    load_checkpoint(tmp_path / "checkpoint", other.network, other.optimizer)
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    for each in (trained, other):
        each.optimizer.zero_grad()
        each.network(images).square().sum().backward()
        each.optimizer.step()
        save_checkpoint(tmp_path / f"after-{id(each)}", each.network, each.optimizer, {})
    first, second = tmp_path.glob("after-*")
    assert first.read_bytes() == second.read_bytes()


def test_a_checkpoint_of_another_network_is_refused(trained, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", trained.network, trained.optimizer, {})
    for network in (nn.Linear(3, 4), nn.Sequential(nn.Conv2d(3, 5, 3))):
        optimizer = optimizer_of(network, run_config())
        with pytest.raises(ArtifactError, match="belongs to another network"):
            load_checkpoint(tmp_path / "checkpoint", network, optimizer)


@pytest.mark.parametrize(
    "change",
    [lambda data: b"", lambda data: data[:100], lambda data: data[:-1], lambda data: b"\x80\x04" + data],
)
def test_a_checkpoint_that_cannot_be_read(trained, tmp_path, change):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, trained.network, trained.optimizer, {})
    path.write_bytes(change(path.read_bytes()))
    other = fresh(trained)
    with pytest.raises(ArtifactError, match="cannot read the checkpoint"):
        load_checkpoint(path, other.network, other.optimizer)
    with pytest.raises(ArtifactError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path / "missing", other.network, other.optimizer)


def test_a_trainer_without_its_checkpoint_says_so(undisturbed, tmp_path):
    shutil.copytree(undisturbed.run.folder, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "round-000002.safetensors").unlink()
    run = open_run(tmp_path / "run")
    with pytest.raises(ArtifactError, match="cannot read the checkpoint"):
        Trainer(run).run_until_done()
    run.store.close()


def test_releasing_is_what_a_new_trainer_does_first(empty_run, copy_of, monkeypatch):
    other = copy_of(empty_run)
    applied = []
    monkeypatch.setattr(
        other.run.store, "apply", lambda event: applied.append(event) or other.run.store.state()
    )
    Trainer(other.run).run_until_done(parent_pid=0)
    assert applied == [Released()]
