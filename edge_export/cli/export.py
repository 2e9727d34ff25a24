"""``gkt export``: artifacts that a device trains with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edge_export.cli.verify import show_verification, verification_progress
from gkt_core.bundle.manifest import ENGINE_FILES
from gkt_core.cli import emit_json
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.network_options import network_options_with_full
from gkt_core.config.run_config import EDGE_OPTIMIZERS
from gkt_core.errors import ArtifactError, ConfigError, MissingExtraError


def _three(text: str, option: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} is {text!r}, expected three numbers such as 0.49,0.48,0.45") from error
    return values * 3 if len(values) == 1 else values


@click.command()
@network_options_with_full
@click.option("--num-classes", type=int, help="Number of classes; 10 unless --split is given.")
@click.option("--image-size", type=int, help="Pixels; 32 unless --split is given.")
@click.option("--pixel-mean", default="0.5", show_default=True, help="Mean of R,G,B in 0..1.")
@click.option("--pixel-std", default="0.25", show_default=True, help="Standard deviation of R,G,B in 0..1.")
@click.option(
    "--split",
    "split_file",
    type=click.Path(path_type=Path),
    help="partition.json of gkt data split: classes, image size and pixel statistics are taken from it.",
)
@click.option(
    "--temperature", default=3.0, show_default=True, help="T of the distillation loss in the graph."
)
@click.option(
    "--backend",
    type=click.Choice(["ort-training", "portable", "both"]),
    default="both",
    show_default=True,
    help="portable: one file of standard operators for any ONNX Runtime; ort-training: for its training "
    "builds. A device takes what it can run, portable first.",
)
@click.option(
    "--optimizer",
    type=click.Choice(EDGE_OPTIMIZERS),
    default="adam",
    show_default=True,
    help="adam and sgd take --weight-decay as an L2 penalty, adamw as decoupled decay.",
)
@click.option("--weight-decay", default=0.0, show_default=True, help="The paper has 1e-4; 0 for none.")
@click.option("--momentum", default=0.0, show_default=True, help="Of sgd.")
@click.option("--nesterov", is_flag=True, help="Nesterov's momentum, for sgd.")
@click.option("--amsgrad", is_flag=True, help="AMSGrad, for adam; with --backend portable only.")
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    help="Initial weights, a .safetensors file with PyTorch's names; random ones by default.",
)
@click.option(
    "--low-memory",
    is_flag=True,
    help="A portable step that makes values again rather than to keep them: a quarter less memory at batch "
    "64, a seventh slower.",
)
@click.option("--ort-format", is_flag=True, help="Also write .ort files, which mobile builds load.")
@click.option("--seed", default=0, show_default=True, help="Seed of the initial weights.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--json", "as_json", is_flag=True, help="Print manifest.json to stdout.")
def export(
    edge_network: str,
    server_network: str,
    num_classes: int | None,
    image_size: int | None,
    pixel_mean: str,
    pixel_std: str,
    split_file: Path | None,
    temperature: float,
    backend: str,
    optimizer: str,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    amsgrad: bool,
    init: Path | None,
    low_memory: bool,
    ort_format: bool,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Write what a device trains with, and the template of the combined model.

    The loss of Eq. 7 (cross entropy + alpha x T^2 x KL(server || device)) is inside the graph, so a
    device needs no PyTorch. Before the folder gets its name, 20 training steps of every engine are run
    against PyTorch in float64; artifacts that differ are not written (exit code 6). gkt verify repeats it.
    With --model resnet56 or resnet110 the whole network is trained on the device, as FedAvg does.
    """
    try:
        from edge_export.bundle import export_bundle  # noqa: PLC0415 - imports torch
        from edge_export.options import ExportOptions  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "export") from error
    mean, std = _three(pixel_mean, "--pixel-mean"), _three(pixel_std, "--pixel-std")
    class_names: tuple[str, ...] = ()
    if split_file is not None:
        found = _read_split(split_file)
        if num_classes not in (None, found["num_classes"]) or image_size not in (None, found["image_size"]):
            raise ConfigError(
                f"{split_file} has {found['num_classes']} classes of {found['image_size']} px images: "
                "leave out --num-classes and --image-size, or --split"
            )
        num_classes, image_size = int(found["num_classes"]), int(found["image_size"])
        mean, std = tuple(found["pixel_mean"]), tuple(found["pixel_std"])
        class_names = tuple(found["class_names"])
    options = ExportOptions(
        edge_network=edge_network,
        server_network=server_network,
        num_classes=10 if num_classes is None else num_classes,
        image_size=32 if image_size is None else image_size,
        pixel_mean=mean,
        pixel_std=std,
        class_names=class_names,
        temperature=temperature,
        optimizer=EdgeOptimizer(
            name=optimizer,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            amsgrad=amsgrad,
        ),
        engines=tuple(ENGINE_FILES) if backend == "both" else (backend.replace("-", "_"),),
        init=init,
        low_memory=low_memory,
        ort_format=ort_format,
        seed=seed,
    )
    with verification_progress() as on_step:
        manifest = export_bundle(options, out, on_step=on_step)
    if as_json:
        emit_json(manifest.to_dict())
        return
    total = sum(entry["num_bytes"] for entry in manifest.files.values())
    click.echo(f"{out}: {manifest.edge_network} -> {manifest.server_network}, {total / 1e6:.2f} MB")
    for name, entry in manifest.files.items():
        click.echo(f"  {name:28s} {entry['num_bytes']:>9,} bytes")
    show_verification(manifest.verification)


def _read_split(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        missing = {"num_classes", "image_size", "pixel_mean", "pixel_std", "class_names"} - set(found)
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"cannot read the split {path}: {error}") from error
    if missing:
        raise ArtifactError(
            f"{path} has no {', '.join(sorted(missing))}: give partition.json of gkt data split"
        )
    return dict(found)
