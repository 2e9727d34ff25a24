"""``gkt edge``: what runs on a device."""

from __future__ import annotations

import dataclasses
import math
import re
import tempfile
from pathlib import Path

import click

from gkt_core.cli import emit_json
from gkt_core.config import RunConfig
from gkt_core.config_options import build_run_config
from gkt_core.errors import ConfigError, MissingExtraError
from gkt_core.manifest import ENGINE_FILES, Manifest, load_bundle
from gkt_core.private_data import PrivateData, load_private_data, load_test_data
from gkt_core.protocol import check_client_id


@click.group()
def edge() -> None:
    """Run on a device: train, upload features, take the combined model. Never needs PyTorch."""


def _default_client_id(data: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", data.stem).lstrip("-._")[:64] or "device"


def _check_threads(num_threads: int) -> None:
    if not 1 <= num_threads <= 256:
        raise ConfigError(f"--threads is {num_threads}, expected 1 to 256")


@edge.command()
@click.option("--server", "url", required=True, help="URL that gkt serve printed.")
@click.option(
    "--token", envvar="GKT_TOKEN", required=True, help="Token that gkt serve printed [env: GKT_TOKEN]."
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
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON to stdout.")
def run(
    url: str,
    token: str,
    data: Path,
    state_dir: Path | None,
    client_id: str | None,
    num_threads: int,
    engine: str | None,
    checkpoint_seconds: float,
    patience_seconds: float | None,
    is_dry_run: bool,
    as_json: bool,
) -> None:
    """Take part in the server's run until it ends.

    Trains on --data, uploads feature maps, logits and labels (never images or weights), distils from the
    server's answers. Started again after a stop, it goes on from --state-dir. In the end
    STATE_DIR/model.onnx is the combined model of this device.
    """
    try:
        from edge_runtime.device import Device  # noqa: PLC0415 - imports an extra
        from edge_runtime.progress import DeviceProgress  # noqa: PLC0415
        from edge_runtime.server_client import ServerClient  # noqa: PLC0415
        from edge_runtime.state_dir import StateDir  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "edge") from error
    _check_threads(num_threads)
    name = check_client_id(client_id or _default_client_id(data))
    private = load_private_data(data)
    if state_dir is None and not is_dry_run:
        raise ConfigError("give --state-dir, the folder that keeps this device's weights between restarts")
    with DeviceProgress(name) as progress:
        if patience_seconds is None:
            patience_seconds = 30.0 if is_dry_run else math.inf
        server = ServerClient(url, token, patience_seconds=patience_seconds, on_retry=progress.note)
        try:
            if is_dry_run:
                _show_dry_run(server, private, name, num_threads, as_json)
                return
            assert state_dir is not None
            folder = StateDir(state_dir)
            try:
                device = Device(
                    server,
                    private,
                    folder,
                    client_id=name,
                    num_threads=num_threads,
                    engine=engine and engine.replace("-", "_"),
                    checkpoint_seconds=checkpoint_seconds,
                    listener=progress,
                )
                result = device.run()
            finally:
                folder.close()
        finally:
            server.close()
    if as_json:
        emit_json(dataclasses.asdict(result))
    else:
        click.echo(
            f"{name}: {result.rounds} rounds, {result.upload_bytes:,} bytes sent, "
            f"{result.download_bytes:,} received; the combined model is {result.model}"
        )


def _show_dry_run(
    server: object, private: PrivateData, client_id: str, num_threads: int, as_json: bool
) -> None:
    from edge_runtime.backends.choice import choose_engine  # noqa: PLC0415
    from edge_runtime.device import check_data  # noqa: PLC0415
    from edge_runtime.dry_run import dry_run  # noqa: PLC0415
    from edge_runtime.server_client import ServerClient  # noqa: PLC0415
    from edge_runtime.state_dir import StateDir  # noqa: PLC0415

    assert isinstance(server, ServerClient)
    info = server.run_info()
    check_data(private, Manifest.from_dict(info.manifest), client_id)
    with tempfile.TemporaryDirectory() as temporary:
        folder = StateDir(Path(temporary))
        try:
            engine = choose_engine(Manifest.from_dict(info.manifest))
            bundle = folder.bundle(info.manifest, server.artifact, engine)
            config = RunConfig.from_dict(info.config)
            shown = dry_run(bundle, private, config, client_id=client_id, num_threads=num_threads)
        finally:
            folder.close()
    if as_json:
        emit_json(dataclasses.asdict(shown))
        return
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


@edge.command()
@click.option("--model", type=click.Path(path_type=Path), required=True, help="model.onnx of gkt edge run.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="test.npz of gkt data split.")
@click.option("--threads", "num_threads", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def evaluate(model: Path, data: Path, num_threads: int, as_json: bool) -> None:
    """Measure a combined model's accuracy on a test set, with ONNX Runtime."""
    from edge_runtime.evaluation import evaluate_model  # noqa: PLC0415 - imports an extra

    _check_threads(num_threads)
    result = evaluate_model(model, load_test_data(data), num_threads=num_threads)
    if as_json:
        emit_json(dataclasses.asdict(result))
    else:
        click.echo(f"{model}: {result.accuracy:.4f} of {result.num_examples} test images right")


@edge.command("train-alone")
@click.option("--artifacts", type=click.Path(path_type=Path), required=True, help="Bundle of gkt export.")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="This device's file of gkt data split."
)
@click.option("--test", type=click.Path(path_type=Path), required=True, help="test.npz of gkt data split.")
@click.option("--rounds", type=int, help="Rounds of local epochs, as in the run to compare with.")
@click.option("--client-id", help="Name of this device; the data file's name by default.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML run file for the rest.")
@click.option("--threads", "num_threads", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def alone(
    artifacts: Path,
    data: Path,
    test: Path,
    rounds: int | None,
    client_id: str | None,
    config_file: Path | None,
    num_threads: int,
    as_json: bool,
) -> None:
    """Train the edge network on this device's data alone: what it would have without the others."""
    from edge_runtime.device import check_data  # noqa: PLC0415 - imports an extra
    from edge_runtime.evaluation import train_alone  # noqa: PLC0415

    _check_threads(num_threads)
    config = build_run_config({"rounds": rounds}, file=config_file)
    bundle = load_bundle(artifacts)
    private = load_private_data(data)
    name = check_client_id(client_id or _default_client_id(data))
    check_data(private, bundle.manifest, str(data))
    result = train_alone(
        bundle,
        private,
        load_test_data(test),
        config,
        client_id=name,
        num_rounds=config.rounds,
        num_threads=num_threads,
    )
    if as_json:
        emit_json(dataclasses.asdict(result))
    else:
        click.echo(
            f"{name} alone, {config.rounds} rounds of {config.local_epochs} epoch(s): "
            f"{result.accuracy:.4f} of {result.num_examples} test images right"
        )
