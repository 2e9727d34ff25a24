"""The command ``gkt edge run``."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.cli.connecting import enter
from edge_runtime.cli.options import RunOptions
from gkt_core.bundle.manifest import Manifest
from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.data.private_data import PrivateData, load_private_data
from gkt_core.errors import ConfigError, DatasetError, needs
from gkt_core.files import full_disk_named

if TYPE_CHECKING:
    from edge_runtime.dry_run import DryRun
    from edge_runtime.own_data import OwnData
    from edge_runtime.server_client import ServerClient
    from edge_runtime.state.state_dir import StateDir


@click.command(
    cls=Command,
    example="gkt edge run --join join.txt --data client-000.npz --state-dir state",
)
@dataclass_options(RunOptions, leave_out=("key",))
@json_option()
def run(options: RunOptions, as_json: bool) -> None:
    """Take part in the server's run until it ends.

    The link of gkt serve, or a file that holds it, makes this device a member of the run; from then on
    --state-dir is enough. Trains on --data, uploads feature maps, logits and labels (never images or
    weights), distils from the server's answers. Started again after a stop, it goes on from --state-dir. In
    the end STATE_DIR/model.onnx is the combined model of this device.
    """
    with needs("edge"):
        from edge_runtime.device import Device  # noqa: PLC0415 - imports an extra
        from edge_runtime.machine.limits import (  # noqa: PLC0415
            be_nice,
            limit_memory,
            memory_named,
            most_bundle_bytes,
        )
        from edge_runtime.machine.pauses import Pauses  # noqa: PLC0415
        from edge_runtime.own_data import OwnData  # noqa: PLC0415
        from edge_runtime.progress import DeviceProgress  # noqa: PLC0415
        from edge_runtime.state.identity import Identity, identity_of  # noqa: PLC0415
        from edge_runtime.trust.endless import EndlessWatch  # noqa: PLC0415
    be_nice(options.nice)
    if options.memory_limit_mb is not None:
        limit_memory(options.memory_limit_mb)
    with contextlib.ExitStack() as stack:
        stack.enter_context(memory_named())
        # Before anything is written: a file that cannot be read, a name that cannot be one.
        private = _private_file(options)
        identity = Identity(options.name, "")
        folder = _state_folder(options)
        if folder is not None:
            stack.callback(folder.close)
            with full_disk_named(folder.path):
                identity = identity_of(folder.path, options.client_id, options.stem)
        name = identity.client_id
        progress = stack.enter_context(
            DeviceProgress(name, options.progress or ("json" if as_json else None))
        )
        limits = options.pause_below_battery, options.pause_above_celsius
        pauses = Pauses(*limits, sysfs=options.sysfs, note=progress.note)
        for limit in pauses.missing():
            progress.note(f"{limit}: nothing below {options.sysfs} says so, training never waits for it")
        kept_in = None if folder is None else folder.path
        own = OwnData(name, private, str(options.data), options.pack, kept_in, progress.note, options.tap)
        server = enter(options, kept_in, identity, progress.note, own.fit)
        stack.callback(server.close)
        engine = options.engine and options.engine.replace("-", "_")
        if folder is None:
            shown = _dry_run(server, own, options, engine)
            if as_json:
                emit_json(dataclasses.asdict(shown))
            else:
                _print_dry_run(shown, name)
            return
        device = Device(
            server,
            own.private or own.fit(server.run_info()),
            folder,
            client_id=name,
            client_key=identity.client_key,
            num_threads=options.num_threads,
            engine=engine,
            checkpoint_seconds=options.checkpoint_seconds,
            noise=options.noise,
            tap=options.tap,
            pauses=pauses,
            tries_memory=options.memory_limit_mb is not None,
            most_bundle_bytes=most_bundle_bytes(options.memory_limit_mb),
            watch=EndlessWatch(),
            listener=progress,
        )
        result = device.run()
    if as_json:
        emit_json(dataclasses.asdict(result))
    else:
        click.echo(
            f"{name}: {result.rounds} rounds, {result.upload_bytes:,} bytes sent, "
            f"{result.download_bytes:,} received; the combined model is {result.model}, right on "
            f"{result.validation_accuracy:.1%} of {result.num_validation_images} validation images"
        )


def _private_file(options: RunOptions) -> PrivateData | None:
    """Read the device's file; None where --data is photos, arrays or a function, which are to be packed."""
    from edge_runtime.state.packed_data import PACKED_NAME, is_packed  # noqa: PLC0415

    try:
        return load_private_data(options.data) if is_packed(str(options.data)) else None
    except DatasetError as error:
        packed = None if options.state_dir is None else options.state_dir / PACKED_NAME
        if packed is None or not packed.exists() or options.data.exists():
            raise
        raise DatasetError(f"{error}: to go on with what was packed of it, --data {packed}") from error


def _state_folder(options: RunOptions) -> StateDir | None:
    """Open what survives a restart; a dry run keeps nothing."""
    from edge_runtime.state.state_dir import StateDir  # noqa: PLC0415

    if options.is_dry_run:
        return None
    if options.state_dir is None:
        raise ConfigError("give --state-dir, the folder that keeps this device's weights between restarts")
    return StateDir(options.state_dir)


def _dry_run(server: ServerClient, own: OwnData, options: RunOptions, engine: str | None) -> DryRun:
    from edge_runtime.dry_run import dry_run  # noqa: PLC0415
    from edge_runtime.engines.choice import choose_engine  # noqa: PLC0415
    from edge_runtime.machine.limits import most_bundle_bytes  # noqa: PLC0415
    from edge_runtime.state.state_dir import StateDir  # noqa: PLC0415
    from edge_runtime.trust.agreed import agreed_config  # noqa: PLC0415
    from edge_runtime.trust.endless import EndlessWatch  # noqa: PLC0415

    info = server.run_info()
    private, manifest = own.fit(info), Manifest.from_dict(info.manifest)
    with tempfile.TemporaryDirectory() as temporary, contextlib.closing(StateDir(Path(temporary))) as folder:
        engine = choose_engine(manifest, engine)
        return dry_run(
            folder.bundle(
                info.manifest,
                server.save_artifact,
                engine,
                most_bytes=most_bundle_bytes(options.memory_limit_mb),
            ),
            private,
            agreed_config(info.config),
            client_id=options.name,
            num_threads=options.num_threads,
            engine=engine,
            noise=options.noise,
            watch=EndlessWatch(),
        )


def _print_dry_run(shown: DryRun, client_id: str) -> None:
    click.echo(f"{client_id} would train with {shown.engine}.")
    click.echo(f"The tap of this run: {shown.tap}.")
    click.echo("This would leave the device in every round (nothing was sent):")
    for line in shown.leaves:
        click.echo(f"  - {line}")
    click.echo("This stays:")
    for line in shown.stays:
        click.echo(f"  - {line}")
    click.echo("One shard:")
    for tensor, description in shown.tensors.items():
        click.echo(f"  {tensor:14s} {description}")
    compressed = f" + {shown.encoding}" if shown.encoding else ""
    click.echo(
        f"{shown.num_train_samples} training and {shown.num_validation_samples} validation samples, "
        f"{shown.codec}{compressed}: {shown.shard_bytes:,} bytes a shard, "
        f"about {shown.round_bytes:,} bytes a round, about {shown.run_bytes:,} bytes in {shown.rounds} rounds"
    )
