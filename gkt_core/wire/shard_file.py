"""The file around a shard: safetensors with one metadata key, written canonically, read without trust."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from gkt_core.errors import ShardError

SHARD_VERSION = 1
MAX_HEADER_BYTES = 16 * 1024

_DTYPE_NAMES = {"F32": "float32", "F16": "float16", "U8": "uint8", "I64": "int64"}


def serialise(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> bytes:
    """Write tensors and metadata as one safetensors file; equal content is equal bytes."""
    # One metadata key: safetensors writes several in no fixed order, and equal shards must be equal bytes.
    header = {"gkt": json.dumps({"version": SHARD_VERSION, **metadata}, sort_keys=True)}
    return save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata=header)


def parse(data: bytes | NDArray[np.uint8]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Split a safetensors file into views of ``data`` and our metadata, trusting nothing."""
    view = np.frombuffer(data, dtype=np.uint8) if isinstance(data, bytes) else data
    if view.size < 8:
        raise ShardError(f"a shard of {view.size} bytes is cut short")
    header_bytes = int(view[:8].view("<u8")[0])
    if header_bytes > min(MAX_HEADER_BYTES, view.size - 8):
        raise ShardError(f"the header says {header_bytes} bytes, beyond the shard or {MAX_HEADER_BYTES}")
    try:
        header = json.loads(view[8 : 8 + header_bytes].tobytes().decode("utf-8"))
        metadata = json.loads(header.pop("__metadata__")["gkt"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ShardError("the header is not that of a gkt shard") from error
    if not isinstance(metadata, dict):
        raise ShardError("the header is not that of a gkt shard")
    payload = view[8 + header_bytes :]
    tensors: dict[str, NDArray[Any]] = {}
    spans = []
    for name, entry in header.items():
        tensors[name], begin, end = _view_of(name, entry, payload)
        spans.append((begin, end))
    covered = 0
    # As the format demands: tensors share no byte, and leave none out.
    for begin, end in sorted(spans):
        if begin != covered:
            raise ShardError(f"tensors overlap or leave a gap: one begins at byte {begin}, not {covered}")
        covered = end
    if covered != payload.size:
        raise ShardError(f"{payload.size} bytes of tensors, of which the header names {covered}")
    return tensors, metadata


def _view_of(name: str, entry: Any, payload: NDArray[np.uint8]) -> tuple[NDArray[Any], int, int]:
    try:
        dtype = np.dtype(_DTYPE_NAMES[entry["dtype"]])
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        plain = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(f"tensor {name[:40]!r} has no valid dtype, shape and offsets") from error
    if not plain or len(shape) > 4:
        raise ShardError(f"tensor {name[:40]!r} has no valid dtype, shape and offsets")
    num_bytes = dtype.itemsize
    for length in shape:
        num_bytes *= length
    if not begin <= end <= payload.size or end - begin != num_bytes:
        raise ShardError(f"tensor {name[:40]!r} does not fill its {end - begin} bytes, or lies outside")
    # No tensor of ours is empty, and an empty one may claim lengths that no array can have.
    if num_bytes == 0:
        raise ShardError(f"tensor {name[:40]!r} is empty")
    return payload[begin:end].view(dtype.newbyteorder("<")).reshape(shape), begin, end


def map_file(path: Path, *, is_read_now: bool) -> NDArray[np.uint8]:
    """Map a file as read-only bytes; what is read at once is brought in at once, where the system can."""
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size == 0:
            return np.zeros(0, np.uint8)
        flags = mmap.MAP_SHARED | (getattr(mmap, "MAP_POPULATE", 0) if is_read_now else 0)
        mapped = mmap.mmap(stream.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
    return np.frombuffer(mapped, np.uint8)
