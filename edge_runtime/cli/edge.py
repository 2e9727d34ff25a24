"""``gkt edge``: what runs on a device."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from edge_runtime.cli.run import check_threads, default_client_id, run
from gkt_core.bundle.manifest import load_bundle
from gkt_core.cli import emit_json
from gkt_core.config.run_options import build_run_config
from gkt_core.data.private_data import load_private_data, load_test_data
from gkt_core.wire.protocol import check_client_id


@click.group()
def edge() -> None:
    """Run on a device: train, upload features, take the combined model. Never needs PyTorch."""


edge.add_command(run)


@edge.command()
@click.option("--model", type=click.Path(path_type=Path), required=True, help="model.onnx of gkt edge run.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="test.npz of gkt data split.")
@click.option("--threads", "num_threads", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def evaluate(model: Path, data: Path, num_threads: int, as_json: bool) -> None:
    """Measure a combined model's accuracy on a test set, with ONNX Runtime."""
    from edge_runtime.evaluation import evaluate_model  # noqa: PLC0415 - imports an extra

    check_threads(num_threads)
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

    check_threads(num_threads)
    config = build_run_config({"rounds": rounds}, file=config_file)
    bundle = load_bundle(artifacts)
    private = load_private_data(data)
    name = check_client_id(client_id or default_client_id(data))
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
