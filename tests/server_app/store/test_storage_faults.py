"""Real faults of the storage during a run: devices and trainer wait, and it ends with the same bytes."""

import contextlib
import functools
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import sqlalchemy as sa

from edge_runtime.server_client import ServerClient
from gkt_core.errors import StorageUnavailableError
from gkt_core.wire.protocol import PROTOCOL_VERSION, JoinRequest, RoundReport
from gkt_core.wire.shards import ShardKey
from server_app import RunContext, create_app, create_run, open_run, storage_errors
from server_app.rounds.state import Failed, Phase, RunState
from server_app.run_folder import DATABASE_NAME, SERVER_WEIGHTS_BLOB, Storage
from server_app.storage_errors import describe_storage_error
from server_app.store import RunStore, engine, remote
from server_app.trainer import trainer
from tests.conftest import LONGEST_SECONDS
from tests.server_app.server_fixtures import CLIENTS, NUM_CLASSES, TOKEN, run_config, shard_bytes
from tests.server_app.store.conftest import Bucket
from tests.server_app.waiting import until

ResultT = TypeVar("ResultT")
JOIN = JoinRequest(PROTOCOL_VERSION, 12, 5, NUM_CLASSES, "ort_training")
REPORT = RoundReport(2, 1, 12, 0.75, 0.5, 1.5, 0.25, 8.0)
PARTS = (("train", 0, 8, 0), ("train", 1, 4, 8), ("validation", 0, 5, 90))


class FullDisk:
    """A disk of a few megabytes that somebody else fills to the last byte."""

    words = "the server's disk is full"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("no tmpfs can be mounted here (not root?): the tests of a full disk did NOT run")

    def begin(self) -> None:
        with (self.folder / "filler").open("ab", buffering=0) as stream:
            for num_bytes in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        stream.write(bytes(num_bytes))

    def end(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.folder], check=True)


class LockedDatabase:
    """Another process, such as a backup, holds the database for itself."""

    words = "the server's database is locked"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._connection: sqlite3.Connection | None = None
        folder.mkdir()

    def begin(self) -> None:
        if self._connection is None:
            path = self.folder / "run" / DATABASE_NAME
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=LONGEST_SECONDS
            )
            self._connection.execute("BEGIN EXCLUSIVE")

    def end(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        self.end()


class SilentBucket:
    """A bucket whose server takes connections and answers nothing."""

    words = "the server's blob store does not answer"

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.folder, self._bucket, self.url = folder, bucket, bucket.url
        folder.mkdir()

    def begin(self) -> None:
        self._bucket.pause()

    def end(self) -> None:
        self._bucket.resume()

    def close(self) -> None:
        self.end()


Fault = FullDisk | LockedDatabase | SilentBucket


@pytest.fixture(params=["disk", "database", pytest.param("bucket", marks=pytest.mark.system)])
def fault(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fault]:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr(storage_errors, "_FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(trainer, "_POLL_SECONDS", 0.02)
    folder = tmp_path / "faulty"
    match request.param:
        case "disk":
            fault: Fault = FullDisk(folder)
        case "database":
            fault = LockedDatabase(folder)
        case "bucket":
            fault = SilentBucket(folder, request.getfixturevalue("bucket"))
    yield fault
    fault.end()
    fault.close()


class Play:
    """Two devices send fixed shards, the trainer trains; with a fault at everything that writes.

    Attributes:
        noticed: What the device that waited was told.
        left: What the run leaves, as bytes.
    """

    def __init__(
        self, run: RunContext, fault: Fault | None = None, caplog: pytest.LogCaptureFixture | None = None
    ) -> None:
        self.run, self.fault, self.caplog = run, fault, caplog
        self.noticed: list[str] = []
        transport = httpx.WSGITransport(app=create_app(run, TOKEN))
        self.device = ServerClient(
            "http://server", TOKEN, transport=transport, on_retry=self.noticed.append, sleep=self.sleep
        )
        try:
            self.left = self.play()
        finally:
            self.device.close()

    def sleep(self, seconds: float) -> None:
        assert seconds >= 1, "the server said when to come again"
        # Mended while the device waits.
        if self.fault is not None:
            self.fault.end()

    def write(self, call: Callable[..., ResultT], *arguments: Any, **settings: Any) -> ResultT:
        if self.fault is not None:
            self.fault.begin()
        try:
            return call(*arguments, **settings)
        finally:
            if self.fault is not None:
                self.fault.end()

    def upload(self, client_id: str, number: int, round_num: int) -> None:
        for split, index, num, first_id in PARTS:
            key = ShardKey(client_id, round_num, split, index)
            data = shard_bytes(key, num, first_id=first_id, seed=number)
            receipt = self.write(self.device.put_shard, key, data, compressed=True)
            assert receipt.num_samples == num
        self.write(self.device.report, client_id, round_num, REPORT)

    def train(self) -> RunState:
        # As another process would.
        opened = open_run(self.run.folder)
        try:
            return trainer.Trainer(opened).run_until_done()
        finally:
            opened.store.close()

    def has_warned(self, before: int) -> bool:
        return self.warnings() > before

    def is_answered(self, round_num: int) -> bool:
        return self.run.store.state().last_answer(CLIENTS[0]) == round_num

    def warnings(self) -> int:
        """How often the trainer said what is wrong."""
        assert self.fault is not None and self.caplog is not None
        records = [record for record in self.caplog.records if record.name == "gkt.trainer"]
        return sum(self.fault.words in record.getMessage() for record in records)

    @contextlib.contextmanager
    def mended(self) -> Iterator[None]:
        """The trainer must not wait for ever where a test fails."""
        try:
            yield
        except BaseException:
            if self.fault is not None:
                self.fault.end()
            self.run.store.apply(Failed("the test failed"))
            raise

    def play(self) -> list[bytes]:
        self.device.run_info()
        for client_id in CLIENTS:
            self.write(self.device.join, client_id, JOIN)
        labels: list[bytes] = []
        trained: Future[RunState] | None = None
        with ThreadPoolExecutor(1) as threads, self.mended():
            for round_num in (1, 2):
                for number, client_id in enumerate(CLIENTS):
                    self.upload(client_id, number, round_num)
                before = self.warnings() if self.fault else 0
                if self.fault:
                    # At whatever the trainer writes next.
                    self.fault.begin()
                trained = trained or threads.submit(self.train)
                if self.fault:
                    until(functools.partial(self.has_warned, before), "a warning")
                    self.fault.end()
                until(functools.partial(self.is_answered, round_num), "the soft labels")
                labels += [self.device.soft_labels(client_id, round_num) for client_id in CLIENTS]
            assert trained is not None
            state = trained.result(timeout=LONGEST_SECONDS)
        assert state.phase is Phase.FINISHED
        return [*labels, self.run.blobs.local_path(SERVER_WEIGHTS_BLOB).read_bytes()]


@pytest.fixture(scope="module")
def undisturbed(server_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[bytes]]:
    run = create_run(
        tmp_path_factory.mktemp("undisturbed") / "run", server_bundle, run_config(quarantine=False), TOKEN
    )
    yield Play(run).left
    run.store.close()


def test_a_run_outlives_a_fault(
    undisturbed: list[bytes],
    server_bundle: Path,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = Storage(blobs=fault.url) if isinstance(fault, SilentBucket) else None
    create_run(
        fault.folder / "run", server_bundle, run_config(quarantine=False), TOKEN, storage
    ).store.close()
    # Now that the run is there: the faults last until they are noticed, and nobody needs to wait longer.
    monkeypatch.setattr(remote, "CONNECT_SECONDS", 0.7)
    monkeypatch.setattr(remote, "READ_SECONDS", 0.3)
    run = open_run(fault.folder / "run")
    try:
        played = Play(run, fault, caplog)
        assert played.left == undisturbed
    finally:
        run.store.close()
    # Each shard was refused first, and the device was told why.
    refused = [line for line in played.noticed if f"status 503: {fault.words}" in line]
    assert len(refused) >= 2 * len(CLIENTS) * len(PARTS)
    assert any("/shards/" in line for line in refused)
    assert f"the storage does not answer: {fault.words}" in caplog.text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "disk is full"),
        (OSError(27, "File too large"), "disk is full"),
        (PermissionError(13, "Permission denied"), "disk does not answer (PermissionError)"),
        (
            sa.exc.OperationalError("", {}, sqlite3.OperationalError("database or disk is full")),
            "disk is full",
        ),
        (sa.exc.OperationalError("", {}, sqlite3.OperationalError("database is locked")), "is locked"),
        (sa.exc.OperationalError("", {}, Exception("server closed the connection")), "database does not"),
        (sa.exc.TimeoutError("QueuePool limit"), "connections are all in use"),
        (StorageUnavailableError("NoCredentialsError: secret"), "blob store does not answer"),
    ],
)
def test_an_error_of_the_storage_in_words(error: Exception, words: str) -> None:
    described = describe_storage_error(error)
    assert words in described and "secret" not in described


def test_as_many_threads_as_come_have_a_connection_each(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run.sqlite", "run-1", {}, RunState(2, 2))
    together = threading.Barrier(40)

    def hold() -> None:
        with store._engine.begin() as connection:
            connection.execute(sa.text("SELECT 1"))
            together.wait(timeout=LONGEST_SECONDS)

    with ThreadPoolExecutor(40) as threads:
        for each in [threads.submit(hold) for _ in range(40)]:
            each.result()
    store.close()


def test_a_servers_log_on_a_full_disk_does_not_end_it() -> None:
    """/dev/full takes nothing."""
    code = (
        "import logging\nfrom server_app.logs.setup import LogOptions, logging_to\n"
        "with logging_to(LogOptions()):\n    logging.getLogger('gkt.server').info('the trainer ended')"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stderr=full, check=False, timeout=LONGEST_SECONDS)
    # 120: Python could not flush stderr in the end.
    assert done.returncode in (0, 120)
