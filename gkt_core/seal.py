"""Seal safetensors files with a hash of themselves, so that a flipped bit is seen when they are read.

The seal stands among the metadata, as 64 zeros until the file is written, and is the SHA-256 of the file as
it then was. A file of an earlier version has none, and is taken for whole if nothing of it is missing.
"""

from __future__ import annotations

import hashlib
import json
import re

OPEN_SEAL = {"sha256": "0" * 64}
# Inside of a JSON text that is a text in a JSON object.
_SEAL = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')
_ANY_TRACE = re.compile(rb"sha256|[0-9a-f]{64}")


def close_seal(data: bytes) -> bytes:
    """Fill in the seal of a file whose metadata holds :data:`OPEN_SEAL`.

    Raises:
        ValueError: It holds none.
    """
    begin, end = _place(data) or (0, 0)
    if not end:
        raise ValueError("the metadata hold no open seal")
    return data[:begin] + hashlib.sha256(data).hexdigest().encode() + data[end:]


def is_whole(data: bytes) -> bool:
    """Whether a file is what was sealed, or was never sealed and is as long as it says."""
    place = _place(data)
    if place is None:
        # One of a seal's halves without the other is a seal that has changed.
        return _is_complete(data) and _ANY_TRACE.search(data, 8, _header_end(data)) is None
    begin, end = place
    opened = data[:begin] + OPEN_SEAL["sha256"].encode() + data[end:]
    return hashlib.sha256(opened).hexdigest().encode() == data[begin:end]


def has_seal(data: bytes) -> bool:
    """Whether a file was sealed; one of an earlier version was not."""
    return _place(data) is not None


def _place(data: bytes) -> tuple[int, int] | None:
    found = _SEAL.search(data, 8, _header_end(data))
    return None if found is None else found.span(1)


def _is_complete(data: bytes) -> bool:
    """Whether all tensors are there that the header of a safetensors file names, and nothing else."""
    end = _header_end(data)
    try:
        header = json.loads(data[8:end])
        ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
        return bool(end + max(ends, default=0) == len(data))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return False


def _header_end(data: bytes) -> int:
    return min(len(data), 8 + int.from_bytes(data[:8], "little"))
