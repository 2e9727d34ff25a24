"""What a server keeps, each part of it really wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from gkt_core.bundle import machine_memory
from gkt_core.doctor.findings import ADVICE, FINE, SKIPPED, WRONG
from gkt_core.errors import InputError
from server_app import create_run
from server_app.doctor.storage import database, disk, secrets, trainer
from server_app.run_folder import DATABASE_NAME, STORAGE_NAME, Storage
from tests.gkt_core.doctor.looking import looked, states, the_one
from tests.server_app.server_fixtures import run_config
from tests.server_app.store.conftest import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]
Usage = namedtuple("Usage", ["total", "used", "free"])
PASSWORD = "a-password-of-the-tests"


@pytest.fixture
def folder(empty_run: Path, tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(empty_run, tmp_path / "run"))
    copied.chmod(0o700)
    return copied


def execute(folder: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / DATABASE_NAME)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_run_that_is_fine(folder: Path) -> None:
    before = (folder / DATABASE_NAME).read_bytes()
    for check in (database, secrets, disk, trainer):
        assert states(looked(check, data_dir=folder)) == [FINE], looked(check, data_dir=folder)
        assert looked(check) == []
    assert (folder / DATABASE_NAME).read_bytes() == before


def test_a_folder_without_a_run_yet(tmp_path: Path) -> None:
    (said,) = looked(disk, data_dir=tmp_path / "new")
    assert said.state == FINE and not (tmp_path / "new").exists()
    assert looked(database, data_dir=tmp_path / "new") == looked(trainer, data_dir=tmp_path / "new") == []


def test_a_damaged_database(folder: Path) -> None:
    (folder / DATABASE_NAME).write_bytes(b"this is no database at all" * 100)
    said = the_one(looked(database, data_dir=folder), WRONG)
    assert "is damaged, or no database of a run" in said.text and "restore a backup" in said.remedy


def test_a_page_of_the_database_that_is_not_what_it_was(folder: Path) -> None:
    content = bytearray((folder / DATABASE_NAME).read_bytes())
    # Every page but the first, which the whole is known by.
    content[4096:] = os.urandom(len(content) - 4096)
    (folder / DATABASE_NAME).write_bytes(bytes(content))
    assert "is damaged" in the_one(looked(database, data_dir=folder), WRONG).text


def test_tables_of_a_newer_and_of_an_older_version_and_of_nobody(folder: Path) -> None:
    execute(folder, "UPDATE alembic_version SET version_num = '9001'")
    newer = the_one(looked(database, data_dir=folder), WRONG)
    assert "written by a newer gkt (tables 9001" in newer.text and "install the version" in newer.remedy
    # Nothing is read of it, and nothing is brought up to date.
    assert states(looked(disk, data_dir=folder)) == [FINE] and looked(trainer, data_dir=folder) == []
    execute(folder, "UPDATE alembic_version SET version_num = '0001'")
    older = the_one(looked(database, data_dir=folder), ADVICE)
    assert "has the tables 0001 of an earlier gkt" in older.text
    execute(folder, "DROP TABLE alembic_version")
    assert "holds no tables of gkt" in the_one(looked(database, data_dir=folder), WRONG).text


@pytest.fixture
def without_rights(folder: Path) -> Iterator[None]:
    """Nobody may write the run: root may always, and is somebody else meanwhile."""
    looked(database, data_dir=folder)
    for path in (folder.parent, folder, folder / DATABASE_NAME):
        path.chmod(0o555 if path.is_dir() else 0o444)
    opened = []
    for parent in folder.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            opened.append((parent, mode))
            parent.chmod(mode | 0o011)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for parent, mode in opened:
            parent.chmod(mode)
        for path in (folder.parent, folder):
            path.chmod(0o700)


@pytest.mark.usefixtures("without_rights")
def test_a_database_that_can_be_read_alone(folder: Path) -> None:
    said = the_one(looked(database, data_dir=folder), WRONG)
    assert "cannot be used: " in said.text and said.remedy == "let this user write the file and its folder"
    with pytest.raises(InputError, match="choose another --data-dir"):
        looked(disk, data_dir=folder)


def test_secrets_that_others_read(folder: Path) -> None:
    (folder / "operator_secret").chmod(0o644)
    # The folder keeps them out.
    assert states(looked(secrets, data_dir=folder)) == [FINE]
    folder.chmod(0o755)
    said = the_one(looked(secrets, data_dir=folder), WRONG)
    assert "may read operator_secret" in said.text and said.remedy == f"chmod -R go= {folder}"
    (folder / "operator_secret").chmod(0o600)
    (folder / "token").chmod(0o600)
    assert the_one(looked(secrets, data_dir=folder), WRONG).remedy == f"chmod 700 {folder}"


def test_a_disk_that_is_too_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests fill no disk: this is what one says that has 1 GB left.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - 10**9, 10**9))
    assert states(looked(disk, data_dir=folder)) == [FINE]
    execute(folder, "INSERT INTO clients SELECT run_id, 'client-a', 400000, 1000, 'portable' FROM runs")
    said = the_one(looked(disk, data_dir=folder), WRONG)
    assert "uploads of 401,000 samples twice" in said.text and "--codec" in said.remedy
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - 10**6, 10**6))
    the_one(looked(disk, data_dir=folder.parent / "new"), WRONG)


def test_memory_that_a_trainer_lacks(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("_CONTAINER_LIMIT", "900000000"), ("_CONTAINER_TAKEN", "890000000")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(machine_memory, name, tmp_path / name)
    said = the_one(looked(trainer, data_dir=folder), WRONG)
    assert "the trainer takes" in said.text and "with batches of 8, 10 are free" in said.text
    (folder / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()}))
    assert states(looked(trainer, data_dir=folder)) == [SKIPPED]


def test_a_postgresql_that_answers(postgres_url: str, server_bundle: Path, tmp_path: Path) -> None:
    (empty,) = looked(database, database=postgres_url)
    assert empty.state == FINE and "holds no run yet" in empty.text
    storage = Storage(database=postgres_url)
    create_run(tmp_path / "run", server_bundle, run_config(), storage=storage).store.close()
    for check in (database, disk, trainer):
        assert states(looked(check, data_dir=tmp_path / "run")) == [FINE]


def test_a_postgresql_that_takes_no_writes(postgres_url: str) -> None:
    url = sa.make_url(postgres_url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with contextlib.closing(engine.connect()) as connection:
        name = connection.execute(sa.text("SELECT current_database()")).scalar_one()
        connection.execute(sa.text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    engine.dispose()
    assert "can be read and not written" in the_one(looked(database, database=postgres_url), WRONG).text


def test_a_postgresql_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    url = f"postgresql://gkt:{PASSWORD}@/gone?host={tmp_path}"
    said = the_one(looked(database, database=url), WRONG)
    assert said.remedy == "look whether the database runs, and is reached from here"
    assert PASSWORD not in repr(said)
    # A run that keeps its state there.
    (folder / DATABASE_NAME).unlink()
    (folder / STORAGE_NAME).write_text(json.dumps({"database": url, "blobs": "", "run_id": "run-1"}))
    assert PASSWORD not in repr(the_one(looked(database, data_dir=folder), WRONG))
    assert states(looked(disk, data_dir=folder)) == [FINE]
