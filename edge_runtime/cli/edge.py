"""``gkt edge``: what runs on a device."""

from __future__ import annotations

import dataclasses

import click

from edge_runtime.cli.options import AloneOptions, EvaluateOptions
from edge_runtime.cli.run import run
from gkt_core.bundle.manifest import load_bundle
from gkt_core.cli import Group, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.config.run_config import build_run_config
from gkt_core.data.private_data import load_private_data, load_test_data


@click.group(cls=Group)
def edge() -> None:
    """Run on a device: train, upload features, take the combined model. Never needs PyTorch."""


edge.add_command(run)


@edge.command(example="gkt edge evaluate --model state/model.onnx --data test.npz")
@dataclass_options(EvaluateOptions)
@json_option()
def evaluate(options: EvaluateOptions, as_json: bool) -> None:
    """Measure a combined model's accuracy on a test set, with ONNX Runtime."""
    from edge_runtime.evaluation import evaluate_model  # noqa: PLC0415 - imports an extra

    result = evaluate_model(options.model, load_test_data(options.data), num_threads=options.num_threads)
    if as_json:
        emit_json(dataclasses.asdict(result))
    else:
        click.echo(f"{options.model}: {result.accuracy:.4f} of {result.num_examples} test images right")


@edge.command(
    "train-alone",
    example="gkt edge train-alone --artifacts artifacts --data client-000.npz --test test.npz",
)
@dataclass_options(AloneOptions)
@json_option()
def alone(options: AloneOptions, as_json: bool) -> None:
    """Train the edge network on this device's data alone: what it would have without the others."""
    from edge_runtime.device import check_data  # noqa: PLC0415 - imports an extra
    from edge_runtime.evaluation import train_alone  # noqa: PLC0415

    config = build_run_config({"rounds": options.rounds}, file=options.config_file)
    bundle = load_bundle(options.artifacts)
    private = load_private_data(options.data)
    check_data(private, bundle.manifest, str(options.data))
    result = train_alone(
        bundle,
        private,
        load_test_data(options.test),
        config,
        client_id=options.name,
        num_threads=options.num_threads,
    )
    if as_json:
        emit_json(dataclasses.asdict(result))
    else:
        click.echo(
            f"{options.name} alone, {config.rounds} rounds of {config.local_epochs} epoch(s): "
            f"{result.accuracy:.4f} of {result.num_examples} test images right"
        )
