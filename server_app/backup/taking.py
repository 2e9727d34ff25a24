"""Take a backup of a run, beside its server or without one: rows of one moment, and every file they need.

While it is taken, the trainer drops nothing (``backup.lock``). What somebody replaces or erases all the same
begins it anew, with the rows of a later moment; so what was erased is in no backup that is whole.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gkt_core.errors import ResourceError
from gkt_core.files import HeldLock
from gkt_core.version import __version__
from server_app.backup.archive import FORMAT, HEADER_NAME, BackupWriter, size_of, writing_backup
from server_app.backup.lock import after_backups
from server_app.backup.rows import copy_run
from server_app.heartbeat import ALIVE_NAME, WAITING_NAME
from server_app.logs.erasing import PLACES_NAME
from server_app.rounds.state import RunState
from server_app.run_folder import (
    BACKUP_LOCK_NAME,
    DATABASE_NAME,
    SECRETS,
    SERVER_INFO_NAME,
    SERVER_LOCK_NAME,
    STORAGE_NAME,
    TRAINER_LOCK_NAME,
    TRAINER_LOG_NAME,
    RunContext,
    is_shard_blob,
    read_storage,
)
from server_app.store import RunStore

_MOST_TRIES = 20
_PATIENCE_SECONDS = 2.0
# Of one process or machine, or elsewhere in the archive.
_LEFT_OUT = {ALIVE_NAME, WAITING_NAME, PLACES_NAME, SERVER_INFO_NAME, STORAGE_NAME, TRAINER_LOG_NAME}
_LEFT_OUT |= {BACKUP_LOCK_NAME, SERVER_LOCK_NAME, TRAINER_LOCK_NAME}
_LEFT_OUT |= {f"{DATABASE_NAME}{end}" for end in ("", "-wal", "-shm", "-journal")}
# Of this machine, and rotated copies; who was forgotten may stand in them.
_LOG = re.compile(r"\.log(\.\d+)?$")


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup is of.

    Attributes:
        run_id: The run.
        phase: Where it stood.
        round_num: The round, or step, that it was in.
        rounds: How many there are.
        taken_at: When, in seconds since the epoch.
        num_files: Files in the archive.
        num_bytes: Of those.
        archive_bytes: Of the archive.
        secrets: Files in it that let somebody speak for the run or its devices.
    """

    run_id: str
    phase: str
    round_num: int
    rounds: int
    taken_at: float
    num_files: int
    num_bytes: int
    archive_bytes: int
    secrets: tuple[str, ...]


class _Moved(Exception):
    """A file that the rows of the moment need is gone."""


def take_backup(run: RunContext, out: Path, note: Callable[[str], None] = lambda line: None) -> Backup:
    """Write an archive of a run.

    Args:
        run: The run; its server may be at work.
        out: ``NAME.tar.zst``, or a folder; it must not exist.
        note: Told what is waited for.

    Raises:
        InputError: The archive cannot be written.
        ResourceError: Files were replaced faster than they could be read.
        StorageUnavailableError: Database or bucket do not answer.
    """
    with _alone(run, note):
        for _ in range(_MOST_TRIES):
            try:
                return _tried(run, out)
            except _Moved as error:
                note(f"{error} was replaced or erased meanwhile: beginning anew")
    raise ResourceError(
        f"the files of the run in {run.folder} change faster than they can be read: pause the run "
        "(gkt runs pause), take the backup, and let it go on (gkt runs resume)"
    )


def _alone(run: RunContext, note: Callable[[str], None]) -> HeldLock:
    """Wait until nobody drops anything, or takes another backup."""
    begun = time.monotonic()

    def waits() -> None:
        nonlocal begun
        if time.monotonic() - begun > _PATIENCE_SECONDS:
            note("waiting for another backup, or for the trainer, which drops what is spent")
            begun = float("inf")

    lock = after_backups(run, waits)
    if os.geteuid() == 0:
        # The trainer, which runs as whoever the folder belongs to, has to be able to take it as well.
        owner = run.folder.stat()
        os.chown(run.folder / BACKUP_LOCK_NAME, owner.st_uid, owner.st_gid)
    return lock


def _tried(run: RunContext, out: Path) -> Backup:
    storage = read_storage(run.folder)
    database: Path | str = storage.database or run.folder / DATABASE_NAME
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.absolute().parent) as scratch,
        writing_backup(out) as archive,
    ):
        there_before = set(run.blobs.names())
        rows = Path(scratch) / DATABASE_NAME
        copy_run(database, rows, run.store.run_id)
        state, needed = _of_rows(rows, run.store.run_id)
        there = there_before | set(run.blobs.names())
        names = sorted(name for name in there if name in needed or not is_shard_blob(name))
        files = _files(run.folder)
        taken_at = time.time()
        backup = Backup(
            run.store.run_id, str(state.phase), state.round_num, state.rounds, taken_at, 0, 0, 0,
            tuple(name for name in SECRETS if name in files),
        )  # fmt: skip
        archive.add_json(
            HEADER_NAME,
            {
                "format": FORMAT,
                "gkt_version": __version__,
                **{name: value for name, value in dataclasses.asdict(backup).items() if "_bytes" not in name},
                "num_files": len(names) + len(files) + 1,
                "database": "postgresql" if storage.database else "sqlite",
                "blobs": "bucket" if storage.blobs else "folder",
            },
        )
        _add_file(archive, DATABASE_NAME, rows)
        for name in files:
            _add_file(archive, name, run.folder / name)
        for name in names:
            _add_blob(archive, run, name)
    return dataclasses.replace(
        backup,
        num_files=len(names) + len(files) + 1,
        num_bytes=archive.num_bytes,
        archive_bytes=size_of(out),
    )


def _of_rows(rows: Path, run_id: str) -> tuple[RunState, set[str]]:
    """Where the run stands in a copy of its rows, and the blobs of all shards that they name."""
    store = RunStore(rows, run_id)
    try:
        return store.read_state(), store.past.shard_blobs()
    finally:
        store.close()


def _files(folder: Path) -> list[str]:
    """The files of a run's folder that belong to it wherever it is."""
    names = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        is_whole = not path.name.startswith(".") and path.name not in _LEFT_OUT and not _LOG.search(path.name)
        if path.is_file() and is_whole and not name.startswith("blobs/"):
            names.append(name)
    return sorted(names)


def _add_file(archive: BackupWriter, name: str, path: Path) -> None:
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise _Moved(name) from None
    # Whoever replaces it gives its name to another file: this one stays as it is.
    with stream:
        archive.add(name, stream, os.fstat(stream.fileno()).st_size)


def _add_blob(archive: BackupWriter, run: RunContext, name: str) -> None:
    try:
        stream, num_bytes = run.blobs.opened(name)
        with stream:
            archive.add(f"blobs/{name}", stream, num_bytes)
    except FileNotFoundError:
        raise _Moved(name) from None
