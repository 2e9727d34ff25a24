"""An SQLite database with an overwritten page, or a text that is none: named, red, and with a remedy."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from flask import Flask

from gkt_core.errors import DamagedStorageError, InputError
from gkt_core.wire.shards import ShardKey
from server_app import create_app
from server_app.run_folder import DATABASE_NAME
from server_app.store import RunStore
from tests.server_app.server_fixtures import TOKEN, shard_bytes
from tests.server_app.web.api_fixtures import Api, refused

KEY = ShardKey("client-a", 1, "train", 0)


def overwrite(path: Path, table: str) -> None:
    """Write another file's bytes over the first page of a table."""
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    database.close()
    with path.open("r+b") as stream:
        stream.seek((page - 1) * size)
        stream.write(b"\xa5" * size)


CALLS: dict[str, tuple[str, Callable[[Api], httpx.Response]]] = {
    "the run": ("runs", lambda api: api.http.get(f"{api.root}/clients/client-a/task")),
    "the devices": ("clients", lambda api: api.http.get(f"{api.root}/status")),
    "the shards": ("shards", lambda api: api.put_shard(KEY, shard_bytes(KEY, 8))),
}


@pytest.mark.parametrize("what", CALLS)
def test_an_overwritten_page_is_named_and_turns_health_red(joined: Api, what: str) -> None:
    table, call = CALLS[what]
    store, path = joined.run.store, joined.run.folder / DATABASE_NAME
    store.close()
    before = sqlite3.connect(path)
    before.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before.close()
    backup = path.read_bytes()
    overwrite(path, table)
    for _ in range(2):
        answer = call(joined)
        refused(
            answer, 503, "DamagedStorageError", "database is damaged", "restores a backup", "devices wait"
        )
        assert int(answer.headers["Retry-After"]) >= 1
        refused(joined.http.get("/v1/health"), 503, "ServiceUnavailable", "damaged", "restore a backup")
    assert joined.http.get("/v1/health/live").status_code == 200
    # What is said is done.
    store.close()
    path.write_bytes(backup)
    app: Flask = create_app(joined.run, TOKEN)
    with httpx.Client(
        transport=httpx.WSGITransport(app=app),
        base_url="http://server",
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as http:
        again = Api(http, joined.run)
        assert call(again).status_code == 200
        assert http.get("/v1/health").status_code == 200


def test_a_state_that_is_none_is_damage_too(joined: Api) -> None:
    with sqlite3.connect(joined.run.folder / DATABASE_NAME) as database:
        database.execute("UPDATE runs SET state = substr(state, 9)")
    database.close()
    refused(joined.http.get(f"{joined.root}/status"), 503, "DamagedStorageError", "restores a backup")
    with pytest.raises(DamagedStorageError):
        joined.run.store.state()


def test_a_command_says_what_to_do(joined: Api) -> None:
    joined.run.store.close()
    path = joined.run.folder / DATABASE_NAME
    overwrite(path, "alembic_version")
    with pytest.raises(InputError, match="restore a backup"):
        RunStore.open(path)
