"""Blobs in a folder: whole or not at all, and nothing outside of it."""

import functools
from pathlib import Path

import pytest

from server_app.store import BlobStore
from tests.server_app.waiting import at_once

NUM_THREADS = 8


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def test_a_blob_is_put_found_and_replaced(blobs: BlobStore) -> None:
    blobs.put("rounds/000001/a/train-000000.safetensors", b"first")
    path = blobs.local_path("rounds/000001/a/train-000000.safetensors")
    assert path.read_bytes() == b"first"
    blobs.put("rounds/000001/a/train-000000.safetensors", b"")
    assert blobs.local_path("rounds/000001/a/train-000000.safetensors").read_bytes() == b""
    assert [each.name for each in path.parent.iterdir()] == [path.name], "no temporary file is left"


@pytest.mark.parametrize("name", ["model", "rounds", "rounds/1", "rounds/1/a/b", "rounds/1/a/" + "n" * 300])
def test_a_blob_that_is_not_there(blobs: BlobStore, name: str) -> None:
    blobs.put("rounds/1/a", b"a")
    with pytest.raises(FileNotFoundError):
        blobs.local_path(name)


def test_only_what_lies_below_is_deleted(blobs: BlobStore) -> None:
    kept = ["rounds/000010/a", "rounds/000002", "soft_labels/000001/a"]
    for name in ("rounds/000001/a", "rounds/000001/b/c", *kept):
        blobs.put(name, b"x")
    blobs.delete_below("rounds/000001")
    blobs.delete_below("rounds/000001")
    blobs.delete_below("rounds/000099")
    for name in kept:
        blobs.local_path(name)
    for name in ("rounds/000001/a", "rounds/000001/b/c"):
        with pytest.raises(FileNotFoundError):
            blobs.local_path(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../run.sqlite",
        "a/../../run.sqlite",
        "a/./b",
        ".",
        "a//b",
        "a/",
        "a\\b",
        "a\0b",
    ],
)
def test_hostile_names_are_refused(blobs: BlobStore, tmp_path: Path, name: str) -> None:
    (tmp_path / "run.sqlite").write_bytes(b"the database")
    for call in (blobs.local_path, blobs.delete_below, lambda name: blobs.put(name, b"x")):
        with pytest.raises(ValueError, match="is no blob name"):
            call(name)
    assert (tmp_path / "run.sqlite").read_bytes() == b"the database"
    assert not (tmp_path / "blobs").exists()


def test_the_same_blob_is_put_by_several_at_once(blobs: BlobStore) -> None:
    contents = [bytes([number]) * 100_000 for number in range(NUM_THREADS)]
    at_once(*(functools.partial(blobs.put, "rounds/1/a", data) for data in contents))
    assert blobs.local_path("rounds/1/a").read_bytes() in contents
