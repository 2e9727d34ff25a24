"""State in PostgreSQL and blobs in S3: real servers, the same runs, and what happens when they are gone."""

import dataclasses
import functools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from edge_runtime.server_client import ServerClient
from gkt_core.errors import ConfigError, InputError, StorageUnavailableError
from gkt_core.wire.protocol import PROTOCOL_VERSION, JoinRequest, RoundReport
from gkt_core.wire.shards import ShardKey
from server_app import RunContext, create_app, create_run, open_run
from server_app.rounds.state import Failed, Joined, Phase, RunState
from server_app.run_folder import SERVER_WEIGHTS_BLOB, Storage
from server_app.store import RemoteBlobStore, RunStore, engine, tables
from server_app.store.identities import known_identities
from server_app.store.joining import Identity
from server_app.trainer.trainer import Trainer
from tests.conftest import LONGEST_SECONDS
from tests.server_app.server_fixtures import CLIENTS, NUM_CLASSES, TOKEN, run_config, shard_bytes
from tests.server_app.store.conftest import Bucket
from tests.server_app.waiting import until

JOIN = JoinRequest(PROTOCOL_VERSION, 12, 5, NUM_CLASSES, "ort_training")
REPORT = RoundReport(2, 1, 12, 0.75, 0.5, 1.5, 0.25, 8.0)


# --- the database


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return tmp_path / "run.sqlite"
    return str(request.getfixturevalue("postgres_url"))


def test_the_migrations_make_the_tables_of_the_code(database: Path | str) -> None:
    opened = engine.open_engine(database)
    engine.migrate(opened)
    with opened.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), tables.metadata)
    opened.dispose()
    assert differences == []


def test_the_newest_migration_is_the_one_that_the_code_knows() -> None:
    config = Config()
    config.set_main_option("script_location", "server_app/store/migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [engine.HEAD_REVISION]


def test_a_database_whose_devices_were_written_without_their_samples_goes_on(database: Path | str) -> None:
    """Revision 0003 was in use without this column; the devices that joined then are known still."""
    opened = engine.open_engine(database)
    engine.migrate(opened)
    joined = {"run_id": "run", "client_id": "a", "key_sha256": "key", "class_names": "[]"}
    with engine.write_transaction(opened) as connection:
        connection.execute(sa.text("ALTER TABLE identities DROP COLUMN samples_sha256"))
        connection.execute(
            sa.text("INSERT INTO identities VALUES (:run_id, :client_id, :key_sha256, :class_names)"), joined
        )
        for later in ("credentials", "enrolments"):
            connection.execute(sa.text(f"DROP TABLE {later}"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0003'"))
    engine.migrate(opened)
    with opened.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
        assert known_identities(connection, "run") == [Identity("a", "key")]
    opened.dispose()


def test_several_processes_may_migrate_at_once(database: Path | str) -> None:
    engines = [engine.open_engine(database) for _ in range(4)]
    # SQLite cannot wait while another process turns the write-ahead log on; create_run does it alone.
    engines[0].connect().close()
    barrier = threading.Barrier(4)

    def migrate(each: sa.Engine) -> None:
        barrier.wait(timeout=LONGEST_SECONDS)
        engine.migrate(each)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate, engines))
    with engines[0].connect() as connection:
        versions = connection.execute(sa.text("SELECT version_num FROM alembic_version")).all()
        assert set(sa.inspect(connection).get_table_names()) == {*tables.metadata.tables, "alembic_version"}
    assert versions == [(engine.HEAD_REVISION,)]
    for each in engines:
        each.dispose()


def test_one_database_holds_several_runs(postgres_url: str) -> None:
    for run_id in ("run-1", "run-2"):
        RunStore.create(postgres_url, run_id, {}, RunState(2, 2)).close()
    first, second = (RunStore.open(postgres_url, run_id) for run_id in ("run-1", "run-2"))
    assert first is not None and second is not None
    first.apply(Joined("a"))
    assert (first.state().clients, second.state().clients) == (("a",), ())
    assert RunStore.open(postgres_url, "run-3") is None
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("mysql://user@host/name", ConfigError, ["mysql://", "expected postgresql://"]),
        ("no url", ConfigError, ["cannot be read", "expected postgresql://"]),
        ("postgresql://user:secret@/name?host=/nowhere", InputError, ["cannot be used"]),
    ],
)
def test_a_database_that_cannot_be_used(url: str, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        RunStore.create(url, "run-1", {}, RunState(2, 2))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "secret" not in str(caught.value)


# --- the bucket


@pytest.fixture
def blobs(bucket: Bucket, tmp_path: Path) -> RemoteBlobStore:
    return RemoteBlobStore(bucket.url, tmp_path / "copies")


def test_a_blob_is_put_found_and_deleted_by_another_process(
    blobs: RemoteBlobStore, bucket: Bucket, tmp_path: Path
) -> None:
    other = RemoteBlobStore(bucket.url, tmp_path / "others")
    blobs.put("rounds/000001/a/train-000000", b"first")
    assert other.local_path("rounds/000001/a/train-000000").read_bytes() == b"first"
    for name in ("rounds/000001/b/c", "rounds/000010/a", "soft_labels/000001/a"):
        blobs.put(name, b"x")
    other.delete_below("rounds/000001")
    other.delete_below("rounds/000099")
    other.delete("rounds/000099/a")
    fresh = RemoteBlobStore(bucket.url, tmp_path / "fresh")
    for name in ("rounds/000001/a/train-000000", "rounds/000001/b/c", "rounds", "rounds/000002/a"):
        with pytest.raises(FileNotFoundError):
            fresh.local_path(name)
    fresh.delete("soft_labels/000001/a")
    assert fresh.local_path("rounds/000010/a").read_bytes() == b"x"
    with pytest.raises(FileNotFoundError):
        fresh.local_path("soft_labels/000001/a")


@pytest.mark.parametrize("name", ["", "..", "../x", "a//b", "/etc/passwd", "a\0b"])
def test_hostile_names_are_refused(tmp_path: Path, name: str) -> None:
    blobs = RemoteBlobStore("memory://gkt-tests", tmp_path)
    for call in (blobs.local_path, blobs.delete, blobs.delete_below, lambda name: blobs.put(name, b"x")):
        with pytest.raises(ValueError, match="is no blob name"):
            call(name)


def test_a_bucket_that_is_not_there_is_found_early(
    bucket: Bucket, server_bundle: Path, tmp_path: Path
) -> None:
    for url, word in (("s3://another-bucket/x", "is there such a bucket"), ("nonsense://x", "nonsense")):
        with pytest.raises(ConfigError, match=word):
            create_run(
                tmp_path / "run", server_bundle, run_config(quarantine=False), TOKEN, Storage(blobs=url)
            )
        assert not (tmp_path / "run").exists()


def test_a_bucket_that_is_gone_for_a_while(bucket: Bucket, server_bundle: Path, tmp_path: Path) -> None:
    """Devices are asked for patience, and nothing is lost when it is back."""
    run = create_run(
        tmp_path / "run", server_bundle, run_config(quarantine=False), TOKEN, Storage(blobs=bucket.url)
    )
    app = create_app(run, TOKEN)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            bucket.start()

    transport = httpx.WSGITransport(app=app)
    client = ServerClient("http://server", TOKEN, transport=transport, sleep=sleep)
    client.run_info()
    for client_id in CLIENTS:
        client.join(client_id, JOIN)
    bucket.stop()
    key = ShardKey("client-a", 1, "train", 0)
    receipt = client.put_shard(key, shard_bytes(key, 8), compressed=True)
    client.close()
    assert not receipt.already_stored and len(slept) == 2 and min(slept) >= 2, "as Retry-After says"
    (record,) = run.store.shards(1)
    elsewhere = RemoteBlobStore(f"{bucket.url}/{run.store.run_id}", tmp_path / "elsewhere")
    assert elsewhere.local_path(record.blob).read_bytes() == shard_bytes(key, 8)
    bucket.stop()
    with pytest.raises(StorageUnavailableError, match="does not answer"):
        elsewhere.delete(record.blob)
    bucket.start()
    run.store.close()


# --- whole runs

PARTS = (("train", 0, 8, 0), ("train", 1, 4, 8), ("validation", 0, 5, 90))


def may_train(device: ServerClient, client_id: str) -> bool:
    return device.task(client_id).action == "train"


# Without quarantine: the labels of a device that is no device are random, and other ones in each round.
def outcome(run: RunContext) -> list[bytes]:
    """Send fixed uploads as two devices, train, and return what the run leaves."""
    transport = httpx.WSGITransport(app=create_app(run, TOKEN))
    devices = {client_id: ServerClient("http://server", TOKEN, transport=transport) for client_id in CLIENTS}
    for client_id, device in devices.items():
        device.run_info()
        device.join(client_id, JOIN)

    def train() -> RunState:
        # As another process would.
        opened = open_run(run.folder)
        try:
            return Trainer(opened).run_until_done()
        finally:
            opened.store.close()

    labels: list[bytes] = []
    with ThreadPoolExecutor(1) as threads:
        trained = threads.submit(train)
        try:
            for round_num in (1, 2):
                for number, (client_id, device) in enumerate(devices.items()):
                    until(functools.partial(may_train, device, client_id), "a task")
                    for split, index, num, first_id in PARTS:
                        key = ShardKey(client_id, round_num, split, index)
                        data = shard_bytes(key, num, first_id=first_id, seed=number)
                        device.put_shard(key, data, compressed=True)
                    assert device.missing_shards(client_id, round_num).train == []
                    device.report(client_id, round_num, REPORT)
                until(
                    lambda: run.store.state().phase not in (Phase.READY, Phase.TRAINING), "the end of a round"
                )
                labels += [device.soft_labels(client_id, round_num) for client_id, device in devices.items()]
            assert trained.result(timeout=LONGEST_SECONDS).phase is Phase.FINISHED
        except BaseException:
            # Else the trainer would wait for ever.
            run.store.apply(Failed("the test failed"))
            raise
    for device in devices.values():
        device.close()
    return [*labels, run.blobs.local_path(SERVER_WEIGHTS_BLOB).read_bytes()]


def test_a_run_elsewhere_is_the_same_run(
    postgres_url: str, bucket: Bucket, server_bundle: Path, tmp_path: Path
) -> None:
    here = create_run(tmp_path / "here", server_bundle, run_config(quarantine=False), TOKEN)
    storage = Storage(postgres_url, bucket.url)
    there = create_run(tmp_path / "there", server_bundle, run_config(quarantine=False), TOKEN, storage)
    kept = tmp_path / "there" / "storage.json"
    assert json.loads(kept.read_text()) == dataclasses.asdict(
        dataclasses.replace(storage, run_id=there.store.run_id)
    )
    assert kept.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "there" / "run.sqlite").exists()
    assert outcome(here) == outcome(there)
    fresh = RemoteBlobStore(f"{bucket.url}/{there.store.run_id}", tmp_path / "fresh")
    assert fresh.local_path(SERVER_WEIGHTS_BLOB).read_bytes()
    here.store.close()
    there.store.close()
