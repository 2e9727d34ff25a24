"""Take a device's name and address out of logs, byte by byte where they stand.

Nothing moves and no file changes its length, so that whoever writes to a log meanwhile loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

from gkt_core.files import write_atomically

# In the run's folder: where logs are written that are not in it.
PLACES_NAME = "logs.json"
_ADDRESS = re.compile(rb'("address": "|\bfrom )([0-9A-Fa-f.:%]*[0-9A-Fa-f])')


def note_place(folder: Path, path: Path) -> None:
    """Remember in the folder of a run that its log is written to this file."""
    places = _places(folder)
    if (place := str(path.resolve())) not in places:
        write_atomically(folder / PLACES_NAME, json.dumps([*places, place]).encode(), mode=0o600)


def _places(folder: Path) -> list[str]:
    try:
        kept = json.loads((folder / PLACES_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [str(place) for place in kept] if isinstance(kept, list) else []


def log_files(folder: Path) -> list[Path]:
    """Every log of a run, and what they became when they were rotated."""
    bases = [folder / "trainer.log", *map(Path, _places(folder))]
    return [
        path
        for base in bases
        for path in sorted(base.parent.glob(f"{base.name}*"))
        if re.fullmatch(re.escape(base.name) + r"(\.\d+)?", path.name) and path.is_file()
    ]


def name_pattern(client_id: str) -> re.Pattern[str]:
    """Find a device's name where it is no part of another's."""
    return re.compile(rf"(?<![A-Za-z0-9_-]){re.escape(client_id)}(?![A-Za-z0-9_-])")


def erase_name(folder: Path, client_id: str) -> int:
    """Write stars over a device's name in the logs of a run, and over its address in lines of requests.

    Args:
        folder: The run's.
        client_id: The device.

    Returns:
        In how many lines it stood.
    """
    name = re.compile(name_pattern(client_id).pattern.encode())
    return sum(_erase(path, name) for path in log_files(folder))


def _erase(path: Path, name: re.Pattern[bytes]) -> int:
    num_lines = 0
    # A log that went meanwhile, as it was rotated away.
    with contextlib.suppress(FileNotFoundError), path.open("r+b", buffering=0) as file:
        offset = 0
        with path.open("rb") as lines:
            for line in lines:
                if name.search(line):
                    num_lines += 1
                    for begin, end in _spans(line, name):
                        os.pwrite(file.fileno(), b"*" * (end - begin), offset + begin)
                offset += len(line)
    return num_lines


def _spans(line: bytes, name: re.Pattern[bytes]) -> list[tuple[int, int]]:
    return [match.span() for match in name.finditer(line)] + [
        match.span(2) for match in _ADDRESS.finditer(line)
    ]
