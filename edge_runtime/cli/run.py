"""The command ``gkt edge run``."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import tempfile
from pathlib import Path

import click

from gkt_core.bundle.manifest import ENGINE_FILES, Manifest
from gkt_core.cli import emit_json
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import PrivateData, load_private_data
from gkt_core.errors import ConfigError, MissingExtraError
from gkt_core.wire.feature_noise import FeatureNoise
from gkt_core.wire.protocol import check_client_id


def default_client_id(data: Path) -> str:
    """A device's name from its data file's."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", data.stem).lstrip("-._")[:64] or "device"


def check_threads(num_threads: int) -> None:
    """Refuse thread counts that no engine takes.

    Raises:
        ConfigError: The number is not from 1 to 256.
    """
    if not 1 <= num_threads <= 256:
        raise ConfigError(f"--threads is {num_threads}, expected 1 to 256")


@click.command()
@click.option("--server", "url", required=True, help="URL that gkt serve printed.")
@click.option(
    "--token", envvar="GKT_TOKEN", required=True, help="Token that gkt serve printed [env: GKT_TOKEN]."
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path),
    help="Certificates (PEM) to trust, for a server whose certificate no public authority signed.",
)
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="This device's file of gkt data split."
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="What survives a restart: bundle, weights, model. Needed but for --dry-run.",
)
@click.option("--client-id", help="Name of this device; the data file's name by default.")
@click.option("--threads", "num_threads", default=1, show_default=True, help="CPU threads for training.")
@click.option(
    "--nice", default=0, show_default=True, help="Priority: 0 as others, 19 when nobody else works."
)
@click.option(
    "--memory-limit-mb",
    type=int,
    help="Memory that this process may ask for, in 10^6 bytes; tried before the device joins.",
)
@click.option(
    "--pause-below-battery", type=float, help="Wait between steps while the battery has less percent."
)
@click.option(
    "--pause-above-celsius", type=float, help="Wait between steps while the hottest zone is above that."
)
@click.option(
    "--sysfs",
    type=click.Path(path_type=Path),
    default=Path("/sys"),
    show_default=True,
    help="Where the kernel shows battery and temperature; another path in some containers.",
)
@click.option(
    "--feature-clip", default=0.0, help="Limit features to -C..C before they leave; 0 for no limit."
)
@click.option(
    "--feature-noise",
    default=0.0,
    help="Standard deviation of Gaussian noise on features before they leave; 0 for none.",
)
@click.option(
    "--engine",
    type=click.Choice([name.replace("_", "-") for name in ENGINE_FILES]),
    help="What trains; by default the fastest that the bundle holds and that is installed.",
)
@click.option(
    "--checkpoint-seconds",
    default=30.0,
    show_default=True,
    help="How often the middle of a round is saved to --state-dir; 0 after every step.",
)
@click.option(
    "--patience-seconds",
    type=float,
    help="Give up on a server that has not answered for so long; never by default (--dry-run: 30).",
)
@click.option(
    "--dry-run", "is_dry_run", is_flag=True, help="Show what would leave this device; send nothing of it."
)
@click.option(
    "--progress",
    "style",
    type=click.Choice(["bar", "plain", "json"]),
    help="On stderr: a bar (by default on a terminal), plain lines, or JSON lines (by default with --json).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON to stdout.")
def run(
    *,
    url: str,
    token: str,
    ca_file: Path | None,
    data: Path,
    state_dir: Path | None,
    client_id: str | None,
    num_threads: int,
    nice: int,
    memory_limit_mb: int | None,
    pause_below_battery: float | None,
    pause_above_celsius: float | None,
    sysfs: Path,
    feature_clip: float,
    feature_noise: float,
    engine: str | None,
    checkpoint_seconds: float,
    patience_seconds: float | None,
    is_dry_run: bool,
    style: str | None,
    as_json: bool,
) -> None:
    """Take part in the server's run until it ends.

    Trains on --data, uploads feature maps, logits and labels (never images or weights), distils from the
    server's answers. Started again after a stop, it goes on from --state-dir. In the end
    STATE_DIR/model.onnx is the combined model of this device.
    """
    try:
        from edge_runtime.device import Device  # noqa: PLC0415 - imports an extra
        from edge_runtime.machine.limits import be_nice, limit_memory, memory_named  # noqa: PLC0415
        from edge_runtime.machine.pauses import Pauses  # noqa: PLC0415
        from edge_runtime.progress import DeviceProgress  # noqa: PLC0415
        from edge_runtime.server_client import ServerClient  # noqa: PLC0415
        from edge_runtime.state.state_dir import StateDir  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "edge") from error
    check_threads(num_threads)
    noise = FeatureNoise(feature_clip, feature_noise)
    name = check_client_id(client_id or default_client_id(data))
    be_nice(nice)
    if memory_limit_mb is not None:
        limit_memory(memory_limit_mb)
    with contextlib.ExitStack() as stack:
        stack.enter_context(memory_named())
        private = load_private_data(data)
        if state_dir is None and not is_dry_run:
            raise ConfigError(
                "give --state-dir, the folder that keeps this device's weights between restarts"
            )
        progress = stack.enter_context(DeviceProgress(name, style or ("json" if as_json else None)))
        pauses = Pauses(pause_below_battery, pause_above_celsius, sysfs=sysfs, note=progress.note)
        for limit in pauses.missing():
            progress.note(f"{limit}: nothing below {sysfs} says so, training never waits for it")
        if patience_seconds is None:
            patience_seconds = 30.0 if is_dry_run else math.inf
        server = ServerClient(
            url, token, ca_file=ca_file, patience_seconds=patience_seconds, on_retry=progress.note
        )
        stack.callback(server.close)
        engine = engine and engine.replace("-", "_")
        if is_dry_run:
            _show_dry_run(server, private, name, num_threads, engine, noise, as_json)
            return
        assert state_dir is not None
        folder = StateDir(state_dir)
        stack.callback(folder.close)
        device = Device(
            server,
            private,
            folder,
            client_id=name,
            num_threads=num_threads,
            engine=engine,
            checkpoint_seconds=checkpoint_seconds,
            noise=noise,
            pauses=pauses,
            tries_memory=memory_limit_mb is not None,
            listener=progress,
        )
        result = device.run()
    if as_json:
        emit_json(dataclasses.asdict(result))
    else:
        click.echo(
            f"{name}: {result.rounds} rounds, {result.upload_bytes:,} bytes sent, "
            f"{result.download_bytes:,} received; the combined model is {result.model}"
        )


def _show_dry_run(
    server: object,
    private: PrivateData,
    client_id: str,
    num_threads: int,
    engine: str | None,
    noise: FeatureNoise,
    as_json: bool,
) -> None:
    from edge_runtime.device import check_data  # noqa: PLC0415
    from edge_runtime.dry_run import dry_run  # noqa: PLC0415
    from edge_runtime.engines.choice import choose_engine  # noqa: PLC0415
    from edge_runtime.server_client import ServerClient  # noqa: PLC0415
    from edge_runtime.state.state_dir import StateDir  # noqa: PLC0415

    assert isinstance(server, ServerClient)
    info = server.run_info()
    check_data(private, Manifest.from_dict(info.manifest), client_id)
    with tempfile.TemporaryDirectory() as temporary:
        folder = StateDir(Path(temporary))
        try:
            engine = choose_engine(Manifest.from_dict(info.manifest), engine)
            bundle = folder.bundle(info.manifest, server.artifact, engine)
            config = RunConfig.from_dict(info.config)
            shown = dry_run(
                bundle,
                private,
                config,
                client_id=client_id,
                num_threads=num_threads,
                engine=engine,
                noise=noise,
            )
        finally:
            folder.close()
    if as_json:
        emit_json(dataclasses.asdict(shown))
        return
    click.echo(f"{client_id} would train with {shown.engine}.")
    click.echo("This would leave the device in every round (nothing was sent):")
    for line in shown.leaves:
        click.echo(f"  - {line}")
    click.echo("This stays:")
    for line in shown.stays:
        click.echo(f"  - {line}")
    click.echo("One shard:")
    for tensor, description in shown.tensors.items():
        click.echo(f"  {tensor:14s} {description}")
    compressed = " + zstd" if shown.compressed else ""
    click.echo(
        f"{shown.num_train_samples} training and {shown.num_validation_samples} validation samples, "
        f"{shown.codec}{compressed}: {shown.shard_bytes:,} bytes a shard, "
        f"about {shown.round_bytes:,} bytes a round, about {shown.run_bytes:,} bytes in {shown.rounds} rounds"
    )
