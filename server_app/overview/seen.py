"""Remember when each device was last heard of, and how much it has sent and taken.

The server counts in memory and keeps it in a file of the run's folder now and then, so that it survives a
restart and whoever looks at the folder sees it. What a kill takes of it is a few seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gkt_core.files import write_atomically
from server_app.logs.formats import event
from server_app.members.copies import copied_words

SEEN_NAME = "seen.json"
log = logging.getLogger("gkt.run")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one device's requests.

    Attributes:
        at: When the last one came, in seconds since the epoch.
        upload_bytes: Bodies that it has sent.
        download_bytes: Bodies that it has taken.
        refused: Why the last request was refused; empty where it was not.
        since: When the first one came; 0 where an earlier version counted.
        copied_at: When two processes showed its secret by turns; 0 for never.
    """

    at: float = 0.0
    upload_bytes: int = 0
    download_bytes: int = 0
    refused: str = ""
    since: float = 0.0
    copied_at: float = 0.0


class Ledger:
    """What is known of all devices of one run; threads may use it.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._lock = folder / SEEN_NAME, threading.Lock()
        self._devices, self._has_changed = read_seen(folder), False

    def note(
        self, client_id: str, *, upload_bytes: int = 0, download_bytes: int = 0, refused: str = ""
    ) -> None:
        """Count one request of a device."""
        with self._lock:
            now = time.time()
            before = self._devices.get(client_id, Seen(since=now))
            self._devices[client_id] = Seen(
                now,
                before.upload_bytes + upload_bytes,
                before.download_bytes + download_bytes,
                refused,
                before.since,
                before.copied_at,
            )
            self._has_changed = True

    def note_copy(self, client_id: str) -> None:
        """Remember, and say, that two processes showed a device's secret by turns."""
        with self._lock:
            now = time.time()
            before = self._devices.get(client_id, Seen(now, since=now))
            self._devices[client_id] = dataclasses.replace(before, copied_at=now)
            self._has_changed = True
        log.warning(
            "%s; the one that began later is ended",
            copied_words(client_id),
            extra=event("copied", client_id=client_id),
        )

    def devices(self) -> dict[str, Seen]:
        """All of them, by name."""
        with self._lock:
            return dict(self._devices)

    def forget(self, client_id: str) -> None:
        """Drop a device."""
        with self._lock:
            self._has_changed |= self._devices.pop(client_id, None) is not None

    def keep_only(self, known: Collection[str]) -> None:
        """Drop who is no device of the run any more, as somebody else had it forgotten."""
        for client_id in self.devices().keys() - set(known):
            self.forget(client_id)

    def save(self) -> None:
        """Write it, if anything has changed; on a disk that is full nothing is."""
        with self._lock:
            if not self._has_changed:
                return
            self._has_changed = False
            devices = dict(self._devices)
        with contextlib.suppress(OSError):
            _write(self._path, devices)


def read_seen(folder: Path) -> dict[str, Seen]:
    """What a server has kept in the folder of its run; nothing where it kept nothing that can be read."""
    try:
        kept = json.loads((folder / SEEN_NAME).read_text(encoding="utf-8"))
        return {str(client_id): Seen(**values) for client_id, values in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def erase_seen(folder: Path, client_id: str) -> None:
    """Drop a device from what is kept in the folder of a run."""
    devices = read_seen(folder)
    if devices.pop(client_id, None) is not None:
        _write(folder / SEEN_NAME, devices)


def _write(path: Path, devices: dict[str, Seen]) -> None:
    values = {client_id: dataclasses.asdict(seen) for client_id, seen in devices.items()}
    write_atomically(path, json.dumps(values, sort_keys=True).encode(), mode=0o600)
