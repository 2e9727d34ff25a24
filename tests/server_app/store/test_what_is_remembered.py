"""What is remembered of a database is what it holds, whoever has changed it, and costs no read."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gkt_core.wire.credentials import secret_sha256
from server_app.remembered import Remembered, Revision
from server_app.rounds.state import Joined, RunState
from server_app.store import RunStore
from tests.conftest import LONGEST_SECONDS

CLIENT = "client-a"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    if request.param == "sqlite":
        return tmp_path / "run with a space %41.sqlite"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def store(database: Path | str) -> Iterator[RunStore]:
    with contextlib.closing(RunStore.create(database, "run-1", {}, RunState(2, 2))) as opened:
        yield opened


def enrol(store: RunStore) -> None:
    store.credentials.enrol(store.credentials.open_enrolment(LONGEST_SECONDS), CLIENT, secret_sha256("a"), "")


def test_what_another_store_commits_is_seen_at_once(store: RunStore, database: Path | str) -> None:
    enrol(store)
    with contextlib.closing(RunStore(database, "run-1")) as other:
        for number in range(20):
            for writer, reader in ((store, other), (other, store)):
                name = f"client-{number}-{writer is store}"
                before = reader.state()
                if number < 1:
                    writer.apply(Joined(name))
                    assert name in reader.state().clients and reader.state() != before
                secret = secret_sha256(name)
                known = reader.credentials.find(CLIENT)
                assert known is not None
                writer.credentials.end(CLIENT, revoked=False)
                ended = reader.credentials.find(CLIENT)
                assert ended is not None and ended.secret_sha256 == "" and not ended.fits("a")
                link = writer.credentials.open_enrolment(LONGEST_SECONDS, client_id=CLIENT)
                writer.credentials.enrol(link, CLIENT, secret, "")
                again = reader.credentials.find(CLIENT)
                assert again is not None and again.fits(name)
        other.credentials.end(CLIENT, revoked=True)
    gone = store.credentials.find(CLIENT)
    assert gone is not None and gone.revoked and not gone.fits("a")


def test_what_another_process_commits_is_seen_at_once(store: RunStore, database: Path | str) -> None:
    enrol(store)
    assert (known := store.credentials.find(CLIENT)) is not None and known.fits("a")
    path = f"Path({str(database)!r})" if isinstance(database, Path) else repr(database)
    program = (
        "from pathlib import Path\nfrom server_app.store import RunStore\n"
        f"store = RunStore({path}, 'run-1')\nstore.credentials.end({CLIENT!r}, revoked=True)\nstore.close()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=LONGEST_SECONDS)
    assert (known := store.credentials.find(CLIENT)) is not None and known.revoked


def test_nothing_is_read_while_nothing_changes(tmp_path: Path) -> None:
    database = tmp_path / "run.sqlite"
    with contextlib.closing(RunStore.create(database, "run-1", {}, RunState(2, 2))) as store:
        read: list[str] = []

        def look(name: str) -> str | None:
            read.append(name)
            return None if name == "nobody" else f"{name} {len(read)}"

        remembered = Remembered(Revision(store._engine), look)
        assert [remembered.get(name) for name in ("a", "b", "a", "b")] == ["a 1", "b 2", "a 1", "b 2"]
        # What there is not, anybody may ask for: it takes no room.
        assert [remembered.get("nobody") for _ in range(2)] == [None, None] and len(read) == 4
        store.apply(Joined(CLIENT))
        assert [remembered.get(name) for name in ("a", "a", "b")] == ["a 5", "a 5", "b 6"]
        # The very object, even where something else was written: it need not be compared.
        state = store.state()
        store.count_traffic("upload/shards", 1, 1000)
        assert store.state() is state and store.read_state() is state


def test_a_store_that_was_closed_begins_anew(tmp_path: Path) -> None:
    database = tmp_path / "run.sqlite"
    with contextlib.closing(RunStore.create(database, "run-1", {}, RunState(2, 2))) as store:
        revision = store._revision
        first = revision.mark()
        assert first is not None and first == revision.mark()
        store.close()
        backup = database.read_bytes()
        assert revision.mark() not in (first, None)
        store.apply(Joined(CLIENT))
        assert store.state().clients == (CLIENT,)
        store.close()
        database.write_bytes(backup)
        assert store.state().clients == ()


def test_a_database_that_is_gone_has_no_mark_and_is_not_made(tmp_path: Path) -> None:
    database = tmp_path / "run.sqlite"
    store = RunStore.create(database, "run-1", {}, RunState(2, 2))
    store.close()
    database.unlink()
    assert store._revision.mark() is None and not database.exists()
    store.close()
