"""A device that is forgotten where state is in PostgreSQL and blobs in a bucket: nothing is left there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import sqlalchemy as sa

from server_app import create_app, create_run
from server_app.operating import forget_client
from server_app.rounds.machine import rounds_of
from server_app.run_folder import RunContext, Storage
from server_app.store import tables
from server_app.store.engine import open_engine
from tests.server_app.server_fixtures import OPERATOR_SECRET, run_config
from tests.server_app.store.conftest import Bucket
from tests.server_app.test_forgetting import GONE, NAME, STAYS, holding, trained
from tests.server_app.web.test_authorisation import Everybody

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]


@pytest.fixture
def elsewhere(server_bundle: Path, tmp_path: Path, postgres_url: str, bucket: Bucket) -> Iterator[RunContext]:
    """A run whose folder holds neither rows nor blobs, but copies of some."""
    storage = Storage(database=postgres_url, blobs=bucket.url)
    run = create_run(tmp_path / "run", server_bundle, run_config(), storage=storage)
    with contextlib.closing(run.store):
        yield run


def rows_with_it(url: str) -> list[str]:
    """Tables in which the device stands, by its name or within a text."""
    engine = open_engine(url)
    with engine.begin() as connection:
        held = [
            table.name
            for table in tables.metadata.sorted_tables
            if any(NAME.search(str(tuple(row)).encode()) for row in connection.execute(sa.select(table)))
        ]
    engine.dispose()
    return held


def objects(bucket: Bucket) -> dict[str, bytes]:
    """What the bucket holds, asked past everything of ours."""
    fs = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    return {str(path): bytes(fs.cat_file(path)) for path in fs.find(bucket.url.removeprefix("s3://"))}


def test_nothing_of_it_is_left_there(elsewhere: RunContext, postgres_url: str, bucket: Bucket) -> None:
    run = elsewhere
    everybody = Everybody(create_app(run, operator_secret=OPERATOR_SECRET), run)
    trained(everybody)
    # Of the open round, a shard came already.
    everybody.api(everybody.bearers[GONE]).put_parts(GONE, 2, [("train", 0, 8, 0)])
    assert {"clients", "credentials", "reports", "runs", "shards"} <= set(rows_with_it(postgres_url))
    before = objects(bucket)
    mine = [name for name in before if NAME.search(name.encode())]
    assert len(mine) >= 4 and any("soft_labels" in name for name in mine)
    others = {name: data for name, data in before.items() if STAYS in name}
    assert others

    forgotten = forget_client(run, GONE)

    assert forgotten.state == "forgotten" and rows_with_it(postgres_url) == []
    assert "PostgreSQL does so by itself" in " ".join(forgotten.notes)
    after = objects(bucket)
    assert not [name for name, data in after.items() if NAME.search(name.encode()) or NAME.search(data)]
    assert {name: after[name] for name in others} == others
    # Copies here, and all else in the run's folder.
    assert holding(run.folder) == {}
    state = run.store.state()
    assert rounds_of(state).task_for(state, STAYS, 1.0).action == "train"
