"""Look at what a server keeps: its database, who may read its secrets, room on the disk, memory to train."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkt_core.bundle.manifest import Manifest, load_bundle
from gkt_core.bundle.memory import TRAINER
from gkt_core.config.run_config import RunConfig
from gkt_core.doctor.bundles import judged_memory
from gkt_core.doctor.findings import Finding, advice, fine, skipped, wrong
from gkt_core.doctor.options import DoctorOptions
from gkt_core.errors import DamagedStorageError, GKTError, needs
from gkt_core.files import check_writable, existing_above
from gkt_core.wire.shards import ShardSpec
from server_app.cli.options import RESERVE_MB
from server_app.doctor.address import own_server

if TYPE_CHECKING:
    import sqlalchemy as sa

_MEGABYTE = 1_000_000
# Of a run of ResNet-109: checkpoints, the model, the database.
_RUN_MB = 100


def database(options: DoctorOptions) -> Iterator[Finding]:
    """Look whether a database answers, has tables that this version knows, and can be written."""
    place = _database_of(options)
    if place is None:
        return
    from server_app.store.engine import open_engine, shown  # noqa: PLC0415 - _database_of has looked for it

    name = shown(place)
    engine = open_engine(place)
    try:
        with contextlib.closing(_writing(engine)) as connection:
            yield from _judged_database(connection, name, is_new=place == options.database)
    except DamagedStorageError:
        yield wrong(
            f"{name} is damaged, or no database of a run",
            "restore a backup of it, before gkt serve is started",
        )
    except _database_errors() as error:
        said = str(error.orig or error).strip().splitlines()[0][:200]
        yield wrong(f"{name} cannot be used: {said}", _database_remedy(said))
    finally:
        engine.dispose()


def _writing(engine: sa.Engine) -> sa.Connection:
    """Begin a transaction that may write, and that nothing is written in."""
    connection = engine.connect().execution_options(gkt_writes=True)
    try:
        connection.begin()
    except BaseException:
        connection.close()
        raise
    return connection


def _judged_database(connection: sa.Connection, name: str, *, is_new: bool) -> Iterator[Finding]:
    from server_app.store.engine import HEAD_REVISION, revision_of  # noqa: PLC0415 - imports an extra

    revision = revision_of(connection)
    if connection.dialect.name == "postgresql":
        refused = connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on"
    else:
        refused = bool(connection.exec_driver_sql("PRAGMA query_only").scalar_one())
        damage = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
        if damage != "ok":
            raise DamagedStorageError(damage)
    if refused:
        yield wrong(
            f"{name} can be read and not written", "let this user write, or name the primary database"
        )
    elif revision is None and is_new:
        yield fine(f"{name} answers, can be written, and holds no run yet")
    elif revision is None:
        yield wrong(f"{name} holds no tables of gkt", "restore a backup of it, or choose another --data-dir")
    elif revision > HEAD_REVISION:
        yield wrong(
            f"{name} was written by a newer gkt (tables {revision}, this one knows {HEAD_REVISION})",
            "install the version of gkt-edge that this run was served with last",
        )
    elif revision < HEAD_REVISION:
        yield advice(
            f"{name} has the tables {revision} of an earlier gkt",
            f"copy it, then start gkt serve, which brings it to {HEAD_REVISION}; there is no way back",
        )
    else:
        yield fine(f"{name} answers, has the tables {revision} and can be written")


def _database_remedy(said: str) -> str:
    said = said.lower()
    if "readonly" in said or "permission" in said or "unable to open" in said:
        return "let this user write the file and its folder"
    if "locked" in said:
        return "somebody writes for long: look who has the file open (fuser), then try again"
    if "authentication" in said or "password" in said or "role" in said:
        return "look at user and password in --database or storage.json, and at pg_hba.conf"
    return "look whether the database runs, and is reached from here"


def _database_errors() -> Any:
    import sqlalchemy  # noqa: PLC0415 - of an extra

    return sqlalchemy.exc.DBAPIError


def _database_of(options: DoctorOptions) -> Path | str | None:
    """Give the place of the database that was named, or that the run has; None without one."""
    if options.database is None and options.data_dir is None:
        return None
    with needs("server"):
        from server_app import run_folder  # noqa: PLC0415 - imports an extra
    if options.data_dir is not None and run_folder.has_run(options.data_dir):
        return (
            run_folder.read_storage(options.data_dir).database or options.data_dir / run_folder.DATABASE_NAME
        )
    return options.database


def secrets(options: DoctorOptions) -> Iterator[Finding]:
    """Look who may read what lets people into a run."""
    folder = options.data_dir
    if folder is None or not folder.is_dir() or os.name != "posix":
        return
    with needs("server"):
        from server_app.run_folder import SECRETS  # noqa: PLC0415 - imports an extra
    kept = [folder / name for name in SECRETS if (folder / name).exists()]
    readable = [path.name for path in kept if path.stat().st_mode & 0o077]
    if readable and folder.stat().st_mode & 0o077:
        yield wrong(
            f"others on this machine may read {', '.join(readable)} in {folder}", f"chmod -R go= {folder}"
        )
    elif folder.stat().st_mode & 0o077 and kept:
        yield wrong(f"others on this machine may look into {folder}", f"chmod 700 {folder}")
    elif kept:
        yield fine(f"nobody but its owner reads what is in {folder}")


def disk(options: DoctorOptions) -> Iterator[Finding]:
    """Compare the room on the disk with what a run's uploads and its server take."""
    folder = options.data_dir
    if folder is None:
        return
    check_writable(folder, "--data-dir", is_folder=True)
    free, needed = shutil.disk_usage(existing_above(folder)).free, (RESERVE_MB + _RUN_MB) * _MEGABYTE
    what = f"the reserve of {RESERVE_MB} MB and the run's own {_RUN_MB}"
    if (known := _known_run(options)) is not None:
        config, manifest, num_samples = known
        spec = ShardSpec(config.codec, manifest.feature_shape, manifest.num_classes, config.shard_samples)
        # The round that is trained on, and the one that comes in.
        uploads = 2 * num_samples * spec.max_bytes // config.shard_samples
        needed += uploads
        what += f", and uploads of {num_samples:,} samples twice"
    text = f"{free / _MEGABYTE:,.0f} MB are free for {folder}, {needed / _MEGABYTE:,.0f} are needed: {what}"
    if free >= needed:
        yield fine(text)
    else:
        remedy = "free some space, or move the folder; a codec of fewer bits (gkt serve --codec) takes less"
        yield wrong(text, remedy)


def trainer(options: DoctorOptions) -> Iterator[Finding]:
    """Compare what the trainer of a run takes, by the bundle's estimate, with what is free."""
    if options.data_dir is None:
        return
    if own_server(options.data_dir):
        yield skipped("the run is being served: its trainer has its memory, gkt status tells of it")
    elif (known := _known_run(options)) is not None:
        config, manifest, _ = known
        yield from judged_memory(manifest, config, [TRAINER])


def _known_run(options: DoctorOptions) -> tuple[RunConfig, Manifest, int] | None:
    """Give settings, manifest and samples of a run; None where its database was not brought up to date yet.

    What is wrong with a bundle or a database is said by the checks of those.
    """
    assert options.data_dir is not None
    place = _database_of(options)
    if place is None or (isinstance(place, str) and place == options.database):
        return None
    from server_app import run_folder  # noqa: PLC0415 - _database_of has looked for it
    from server_app.store import RunStore  # noqa: PLC0415
    from server_app.store.engine import HEAD_REVISION, open_engine, revision_of  # noqa: PLC0415

    with contextlib.suppress(GKTError, _database_errors()):
        engine = open_engine(place)
        try:
            with engine.begin() as connection:
                is_known = revision_of(connection) == HEAD_REVISION
        finally:
            engine.dispose()
        run_id = run_folder.read_storage(options.data_dir).run_id or None
        store = RunStore.open(place, run_id) if is_known else None
        if store is not None:
            with contextlib.closing(store):
                joined = store.clients().values()
                samples = sum(each.num_examples + each.num_validation_examples for each in joined)
                manifest = load_bundle(options.data_dir / "artifacts", ()).manifest
                return RunConfig.from_dict(store.config()), manifest, samples
    return None
