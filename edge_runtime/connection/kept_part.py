"""What has come of a download, kept beside a device's state: a process that begins anew goes on with it.

Its note says what it is a part of, by the hash of the whole. A part without a note, or of something else, is
nothing. Neither is believed: the whole is hashed before it is taken.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gkt_core.errors import DiskFullError, GKTError, ServerUnavailableError
from gkt_core.files import full_disk_named, write_atomically

PART_NAME, NOTE_NAME = "download.part", "download.json"


def _forget(whole_sha256: str) -> None:
    """Keep nothing for another process."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a download is written.

    Attributes:
        stream: To be read and written.
        part_of: SHA-256 of the file that the stream holds a part of already; empty for none.
        on_begin: Called when the stream was emptied, with the SHA-256 of the file that comes, or nothing
            where that is not known.
    """

    stream: BinaryIO
    part_of: str = ""
    on_begin: Callable[[str], None] = _forget


@contextlib.contextmanager
def kept_part(folder: Path | None, name: str, stream: BinaryIO) -> Iterator[Place]:
    """Give a place for a download that survives this process; it is copied into ``stream`` when it is whole.

    What the server refuses is not kept, so that no later process asks for the rest of it.

    Args:
        folder: Of the device, which downloads one file at a time; None to keep nothing.
        name: Of what is downloaded, such as the path of its URL.
        stream: Where it is to be in the end.

    Raises:
        DiskFullError: There is no space for it; what has come is kept.
    """
    if folder is None:
        yield Place(stream)
        return
    path, note_path = folder / PART_NAME, folder / NOTE_NAME

    def begin(whole_sha256: str) -> None:
        note_path.unlink(missing_ok=True)
        if whole_sha256:
            write_atomically(note_path, json.dumps({"name": name, "sha256": whole_sha256}).encode())

    def drop() -> None:
        note_path.unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        with full_disk_named(path), os.fdopen(os.open(path, flags, 0o600), "r+b") as kept:
            yield Place(kept, _part_of(note_path, name), begin)
            kept.seek(0)
            shutil.copyfileobj(kept, stream)
    except (ServerUnavailableError, DiskFullError):
        raise
    except GKTError:
        drop()
        raise
    drop()


def _part_of(note_path: Path, name: str) -> str:
    """Read whose part is there, by the hash of the whole; empty for another file's, and for none."""
    try:
        note = json.loads(note_path.read_text(encoding="utf-8"))
        part_of = str(note["sha256"]) if note["name"] == name else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    # It goes into a header.
    return part_of if re.fullmatch("[0-9a-f]{64}", part_of) else ""
