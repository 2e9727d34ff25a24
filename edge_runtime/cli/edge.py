"""``gkt edge``: what runs on a device."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from edge_runtime.cli.options import AloneOptions, ClassifyOptions, EvaluateOptions
from edge_runtime.cli.run import run
from gkt_core.bundle.manifest import load_bundle
from gkt_core.cli import Group, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.config.run_config import build_run_config
from gkt_core.data.augment import view_defaults
from gkt_core.data.private_data import is_private_data, load_private_data, load_test_data
from gkt_core.errors import DatasetError


@click.group(cls=Group)
def edge() -> None:
    """Run on a device: train, upload features, take the combined model. Never needs PyTorch."""


edge.add_command(run)


@edge.command(example="gkt edge evaluate --model state/model.onnx --data test.npz")
@dataclass_options(EvaluateOptions)
@json_option()
def evaluate(options: EvaluateOptions, as_json: bool) -> None:
    """Measure a combined model's accuracy on a test set, with ONNX Runtime.

    Of a device's own file it measures the validation images: those to train on say nothing of new ones.
    """
    from edge_runtime.evaluation import evaluate_model  # noqa: PLC0415 - imports an extra

    part = "validation" if is_private_data(options.data) else "test"
    samples = (
        load_private_data(options.data).validation if part == "validation" else load_test_data(options.data)
    )
    result = evaluate_model(options.model, samples, num_threads=options.num_threads)
    if as_json:
        emit_json(dataclasses.asdict(result) | {"part": part})
    else:
        click.echo(f"{options.model}: {result.accuracy:.4f} of {result.num_examples} {part} images right")


@edge.command("classify", example="gkt edge classify photo.jpg --model state/model.onnx")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@dataclass_options(ClassifyOptions)
@json_option()
def classify_command(photos: tuple[Path, ...], options: ClassifyOptions, as_json: bool) -> None:
    """Say what a combined model sees in PHOTOS, with ONNX Runtime and Pillow.

    Photos that cannot be read are named in the end, and the exit code is 2; the others are printed.
    """
    from edge_runtime.classification import Unread, classify  # noqa: PLC0415 - imports an extra

    results, unread = [], []
    for result in classify(
        photos, options.model, bundle=options.bundle, fit=options.fit, num_threads=options.num_threads
    ):
        if isinstance(result, Unread):
            unread.append(result)
            continue
        results.append(result)
        if not as_json:
            top = list(result.probabilities.items())[: options.top]
            click.echo(f"{result.photo}: " + ", ".join(f"{name} {value:.3f}" for name, value in top))
    if as_json:
        emit_json([dataclasses.asdict(result) for result in results])
    if unread:
        of_all = "" if len(photos) == 1 else f"{len(unread)} of {len(photos)} photos: "
        raise DatasetError(
            f"cannot read {of_all}" + "; ".join(f"{each.photo}: {each.reason}" for each in unread)
        )


@edge.command(
    "train-alone",
    example="gkt edge train-alone --artifacts artifacts --data client-000.npz --test test.npz",
)
@dataclass_options(AloneOptions)
@json_option()
def alone(options: AloneOptions, as_json: bool) -> None:
    """Train the edge network on this device's data alone: what it would have without the others.

    Trains until the accuracy on the device's validation images has not risen for --patience rounds, and tests
    the network as it was at its best; or for exactly --rounds.
    """
    from edge_runtime.alone import train_alone  # noqa: PLC0415
    from edge_runtime.own_data import check_data  # noqa: PLC0415 - imports an extra

    given = {} if options.rounds is None else {"rounds": options.rounds}
    bundle = load_bundle(options.artifacts)
    views = view_defaults(bundle.manifest.image_size, bundle.manifest.may_mirror)
    config = build_run_config(given, file=options.config_file, defaults=views)
    private = load_private_data(options.data)
    check_data(private, bundle.manifest, str(options.data))
    result = train_alone(
        bundle,
        private,
        load_test_data(options.test),
        config,
        client_id=options.name,
        num_threads=options.num_threads,
        rounds=options.rounds,
        patience=options.patience,
        on_round=lambda number, accuracy: click.echo(
            f"round {number}: validation accuracy {accuracy:.4f}", err=True
        ),
    )
    if as_json:
        emit_json(dataclasses.asdict(result))
    else:
        click.echo(
            f"{options.name} alone, {result.num_rounds} rounds of {config.local_epochs} epoch(s): "
            f"{result.accuracy:.4f} of {result.num_examples} test images right"
        )
