"""Say whether what lies in a blob store is whole: a hash is in its name, in itself or beside it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from gkt_core.errors import ShardError
from gkt_core.seal import is_whole
from gkt_core.wire.shards import ShardSpec, map_feature_shard
from server_app.store.folder import BlobStore
from server_app.store.records import ShardRecord

_BESIDE = ".sha256"
_HASH = re.compile("-([0-9a-f]{64})[.]safetensors$")


def shard_trouble(blobs: BlobStore, shard: ShardRecord, spec: ShardSpec) -> str:
    """What is wrong with a stored shard; empty where it is whole.

    Args:
        blobs: Where it is.
        shard: Its record.
        spec: What shards of the run look like.
    """
    trouble = _trouble(blobs, shard, spec)
    if trouble:
        # Where blobs are in a bucket, only the copy here may be damaged.
        blobs.drop_copy(shard.blob)
        trouble = _trouble(blobs, shard, spec)
    return trouble


def _trouble(blobs: BlobStore, shard: ShardRecord, spec: ShardSpec) -> str:
    try:
        path = blobs.local_path(shard.blob)
    except FileNotFoundError:
        return "it is not there"
    named = _HASH.search(shard.blob)
    if named is not None:
        return "" if _sha256(path) == named[1] else "its bytes have changed"
    try:
        # Of an earlier version, whose names do not hold it.
        map_feature_shard(path, shard.key, spec, check_values=True)
    except ShardError as error:
        return str(error)
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def put_with_hash(blobs: BlobStore, name: str, data: bytes) -> None:
    """Store a file that has no place for its hash, and its hash beside it."""
    blobs.put(name, data)
    blobs.put(name + _BESIDE, hashlib.sha256(data).hexdigest().encode())


def has_its_hash(blobs: BlobStore, name: str) -> bool:
    """Whether a file of :func:`put_with_hash` is there and whole; without a hash, whether it is there."""
    for _ in range(2):
        try:
            sha256 = _sha256(blobs.local_path(name))
        except FileNotFoundError:
            return False
        try:
            if blobs.local_path(name + _BESIDE).read_bytes() == sha256.encode():
                return True
        except FileNotFoundError:
            return True
        # As with shards.
        blobs.drop_copy(name)
        blobs.drop_copy(name + _BESIDE)
    return False


def delete_with_hash(blobs: BlobStore, name: str) -> None:
    """Forget a file of :func:`put_with_hash`."""
    blobs.delete(name + _BESIDE)
    blobs.delete(name)


def sealed_blob(blobs: BlobStore, name: str) -> bytes | None:
    """The bytes of a sealed file; None where it is missing or damaged."""
    for _ in range(2):
        try:
            data = blobs.local_path(name).read_bytes()
        except FileNotFoundError:
            return None
        if is_whole(data):
            return data
        # As with shards.
        blobs.drop_copy(name)
    return None
