"""Make a run of a backup: its folder anew, and its rows and blobs wherever they are to be."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gkt_core.errors import BackupError, InputError
from gkt_core.files import new_folder
from server_app.backup.archive import unpack_backup
from server_app.backup.rows import copy_run, drop_run
from server_app.rounds.history import OPERATOR
from server_app.rounds.state import Noted
from server_app.run_folder import (
    DATABASE_NAME,
    STORAGE_NAME,
    Storage,
    make_private,
    open_run,
    write_secret,
)
from server_app.store import RemoteBlobStore, RunStore

BLOBS = "blobs"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored.

    Attributes:
        run_id: The run.
        phase: Where it stands.
        round_num: The round, or step, that it is in.
        rounds: How many there are.
        taken_at: When the backup was taken, in seconds since the epoch.
        num_clients: Devices that are members of it.
        revoked: Those that may take part no more, as of the backup.
    """

    run_id: str
    phase: str
    round_num: int
    rounds: int
    taken_at: float
    num_clients: int
    revoked: tuple[str, ...]


def restore_backup(backup: Path, folder: Path, storage: Storage | None = None) -> Restored:
    """Make the folder of a run from a backup; all or nothing.

    Args:
        backup: An archive, as :func:`server_app.backup.taking.take_backup` writes it.
        folder: A folder that must not exist yet, or be empty.
        storage: Where else than in the folder state and blobs are to be.

    Raises:
        BackupError: The backup is damaged, cut short, of a later version or none.
        InputError: The folder, the database or the bucket holds something already, or cannot be used.
    """
    storage = storage or Storage()
    undo: list[Callable[[], object]] = []
    try:
        with new_folder(folder, "--data-dir") as temporary:
            temporary.chmod(0o700)
            header = unpack_backup(backup, temporary)
            restored = _settle(backup, temporary, str(header.get("run_id")), float(header.get("taken_at", 0)))
            (temporary / BLOBS).mkdir(exist_ok=True)
            if storage.blobs:
                _send_blobs(temporary, f"{storage.blobs.rstrip('/')}/{restored.run_id}", undo)
            if storage.database:
                rows = temporary / DATABASE_NAME
                copy_run(rows, storage.database, restored.run_id)
                undo.append(lambda: drop_run(storage.database, restored.run_id))
                rows.unlink()
            if storage.database or storage.blobs:
                values = dataclasses.asdict(dataclasses.replace(storage, run_id=restored.run_id))
                write_secret(temporary / STORAGE_NAME, json.dumps(values))
            make_private(temporary)
            # What is wrong with it is said before it has its name.
            open_run(temporary).store.close()
    except BaseException:
        for each in reversed(undo):
            with contextlib.suppress(Exception):
                each()
        raise
    return restored


def _settle(backup: Path, folder: Path, run_id: str, taken_at: float) -> Restored:
    """Note in the run that it was restored, and drop files that nothing refers to."""
    rows = folder / DATABASE_NAME
    store = RunStore.open(rows, run_id) if rows.is_file() else None
    if store is None:
        raise BackupError(f"{backup} holds no rows of {run_id}: take another backup, or restore another one")
    with contextlib.closing(store):
        state = store.read_state()
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(taken_at))
        where = f"{state.phase} in round {state.round_num}"
        store.apply(Noted(OPERATOR, f"restored from a backup of {when}, {where}"))
    return Restored(
        run_id, str(state.phase), state.round_num, state.rounds, taken_at, len(state.clients), state.revoked
    )


def _send_blobs(folder: Path, url: str, undo: list[Callable[[], object]]) -> None:
    """Put the blobs into a bucket; no copies of them are left here."""
    bucket = RemoteBlobStore(url, folder / BLOBS)
    bucket.check()
    if names := bucket.names():
        raise InputError(
            f"{url} holds {len(names)} files already: nothing was restored; name another bucket or folder "
            "in it, or empty that one first"
        )
    mine = sorted(
        path.relative_to(folder / BLOBS).as_posix() for path in (folder / BLOBS).rglob("*") if path.is_file()
    )

    def empty() -> None:
        for name in mine:
            bucket.delete(name)

    undo.append(empty)
    for name in mine:
        bucket.put_file(name, folder / BLOBS / name)
        bucket.drop_copy(name)
