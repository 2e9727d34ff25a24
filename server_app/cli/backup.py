"""``gkt backup`` and ``gkt restore``: a run in one archive, and a run again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path

import click

from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options, option
from gkt_core.config.output_path import OUTPUT_FOLDER, OutputPath
from gkt_core.errors import needs
from server_app.cli.options import RunFolder

_ARCHIVE = OutputPath(is_folder=True, file_suffix=".tar.zst")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions(RunFolder):
    """Where a run is, and where its backup goes.

    Attributes:
        out: The archive, NAME.tar.zst, or a folder; it must not exist.
    """

    out: Path = option(click_type=_ARCHIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """Where a run is to be.

    Attributes:
        data_dir: Folder that the run is to have; it must not exist yet, or be empty.
        database: PostgreSQL for the state, postgresql://user:password@host/name, which must not hold this
            run; by default SQLite in --data-dir, whatever it was before.
        blobs: Bucket and folder for the blobs, s3://bucket/folder; by default --data-dir.
    """

    data_dir: Path = option(click_type=OUTPUT_FOLDER)
    database: str | None = option(None, envvar="GKT_DATABASE")
    blobs: str | None = None


@click.command(cls=Command, example="gkt backup --data-dir run --out run-monday.tar.zst")
@dataclass_options(BackupOptions)
@json_option()
def backup(options: BackupOptions, as_json: bool) -> None:
    """Take a backup of a run, also while its server is at work and in the middle of a round.

    The archive holds all that the run needs elsewhere, each file with its checksum: rows (of SQLite or
    PostgreSQL), blobs (of a folder or a bucket), checkpoints, bundle and secrets. It is readable by you
    alone: who has it can speak for the run. Devices and server go on meanwhile; the trainer drops nothing
    until the backup is taken. gkt restore makes a run of it again.
    """
    with needs("server"):
        from server_app.backup.taking import take_backup  # noqa: PLC0415 - imports an extra
        from server_app.run_folder import open_run  # noqa: PLC0415 - imports an extra
        from server_app.storage_errors import storage_named  # noqa: PLC0415 - imports an extra
    # The scratch copy of the rows, too, is its owner's alone.
    os.umask(0o077)
    with storage_named():
        run = open_run(options.data_dir)
        with contextlib.closing(run.store):
            taken = take_backup(run, options.out, lambda line: click.echo(line, err=True))
    if as_json:
        emit_json({**dataclasses.asdict(taken), "archive": str(options.out)})
        return
    click.echo(
        f"{options.out}: {taken.run_id}, {taken.phase} in round {taken.round_num} of {taken.rounds}; "
        f"{taken.num_files} files, {taken.num_bytes:,} bytes in {taken.archive_bytes:,}"
    )
    click.echo(f"it holds secrets ({', '.join(taken.secrets)}): whoever reads it can speak for the run")
    click.echo(f"to go on from it elsewhere: gkt restore {options.out} --data-dir DIR")


@click.command(cls=Command, example="gkt restore run-monday.tar.zst --data-dir run")
@click.argument("backup", type=click.Path(path_type=Path))
@dataclass_options(RestoreOptions)
@json_option()
def restore(backup: Path, options: RestoreOptions, as_json: bool) -> None:
    """Make a run of what gkt backup took: all of it, or nothing where anything is damaged.

    Start its server with the options of before (address, port, --public-url), so that devices find it: they
    come back to the round of the backup by themselves, and the run ends with the same bytes. Whoever was
    revoked or enrolled since the backup was taken is not, in the run that is restored.
    """
    with needs("server"):
        from server_app.backup.restoring import restore_backup  # noqa: PLC0415 - imports an extra
        from server_app.run_folder import Storage  # noqa: PLC0415 - imports an extra
        from server_app.storage_errors import storage_named  # noqa: PLC0415 - imports an extra
    os.umask(0o077)
    with storage_named():
        storage = Storage(options.database or "", options.blobs or "")
        restored = restore_backup(backup, options.data_dir, storage)
    if as_json:
        emit_json({**dataclasses.asdict(restored), "data_dir": str(options.data_dir)})
        return
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(restored.taken_at))
    click.echo(
        f"{options.data_dir}: {restored.run_id} as of {when}, {restored.phase} in round "
        f"{restored.round_num} of {restored.rounds}, with {restored.num_clients} devices"
    )
    click.echo("let no other server go on with this run: a device takes part in one of the two")
    click.echo(
        "devices that were revoked since then are members again: gkt clients revoke; those that enrolled "
        "since then want a link: gkt enroll"
    )
    click.echo(f"next: gkt serve --data-dir {options.data_dir}, with the address of before")
