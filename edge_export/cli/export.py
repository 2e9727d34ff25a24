"""``gkt export``: artifacts that a device trains with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edge_export.cli.options import ExportFiles
from edge_export.cli.verify import export_progress, show_verification
from edge_export.options import EngineNames, ExportOptions
from gkt_core.bundle.manifest import ORT_TRAINING
from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ArtifactError, ConfigError, needs

_LEFT_OUT = ("beta1", "beta2", "eps")
_OF_SPLIT = ("num_classes", "image_size", "pixel_mean", "pixel_std", "class_names")


@click.command(cls=Command, example="gkt export --split split/partition.json --out artifacts")
@dataclass_options(ExportFiles, "files")
@dataclass_options(ExportOptions, "given", leave_out=_LEFT_OUT, given_only=True)
@json_option("manifest.json")
@click.option("--backend", type=EngineNames(), hidden=True, help="What --engine was called before.")
def export(files: ExportFiles, given: dict[str, Any], backend: tuple[str, ...] | None, as_json: bool) -> None:
    """Write what a device trains with, and the template of the combined model.

    The loss of Eq. 7 (cross entropy + alpha x T^2 x KL(server || device)) is inside the graph, so a
    device needs no PyTorch. Before the folder gets its name, 20 training steps of every engine are run
    against PyTorch in float64; artifacts that differ are not written (exit code 6). gkt verify repeats it.
    With --model resnet56 or resnet110 the whole network is trained on the device, as FedAvg does.
    """
    with needs("export"):
        from edge_export.bundle import export_bundle  # noqa: PLC0415 - imports torch
    if backend is not None:
        given.setdefault("engines", backend)
    if names := given.get("class_names"):
        if len(names) == 1:
            raise ConfigError(
                f"--classes names 1 class ({names[0]}), expected at least 2: name what it is told from as "
                f"well, as --classes {names[0]},other"
            )
        given.setdefault("num_classes", len(names))
    if files.split is not None:
        given |= _of_split(files.split, given)
    is_chosen = "engines" in given
    options = ExportOptions(**given | {"optimizer": EdgeOptimizer(**given.pop("optimizer"))})
    if not (is_chosen or ORT_TRAINING in options.engines):
        click.echo(
            "exporting for the engine portable alone, which any ONNX Runtime runs: the one installed here is "
            "no training build",
            err=True,
        )
    with export_progress() as (say, on_step):
        manifest = export_bundle(options, files.out, verify=files.depth, say=say, on_step=on_step)
    if as_json:
        emit_json(manifest.to_dict())
        return
    total = sum(entry["num_bytes"] for entry in manifest.files.values())
    click.echo(f"{files.out}: {manifest.edge_network} -> {manifest.server_network}, {total / 1e6:.2f} MB")
    for name, entry in manifest.files.items():
        click.echo(f"  {name:28s} {entry['num_bytes']:>9,} bytes")
    if (memory := manifest.memory) is not None:
        for line in memory.lines(manifest.image_size, RunConfig().batch_size):
            click.echo(line)
        if hint := memory.strided_hint(manifest.edge_network, manifest.image_size):
            click.echo(hint)
    show_verification(manifest.verification)
    if not manifest.verification:
        click.echo(f"not verified (--verify none): gkt verify {files.out} does it")


def _of_split(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """What a split says of its images.

    Raises:
        ArtifactError: The file cannot be read, or is another one.
        ConfigError: Other images were asked for.
    """
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
        missing = set(_OF_SPLIT) - set(split)
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"cannot read the split {path}: {error}") from error
    if missing:
        raise ArtifactError(
            f"{path} has no {', '.join(sorted(missing))}: give partition.json of gkt data split"
        )
    if any(given.get(name, split[name]) != split[name] for name in ("num_classes", "image_size")):
        raise ConfigError(
            f"{path} has {split['num_classes']} classes of {split['image_size']} px images: "
            "leave out --num-classes, --classes and --image-size, or --split"
        )
    if given.get("class_names", names := tuple(split["class_names"])) != names:
        raise ConfigError(
            f"{path} names the classes {', '.join(names[:20])}: leave out --classes, or --split"
        )
    if "horizontal_flip" in split:
        given.setdefault("horizontal_flip", bool(split["horizontal_flip"]))
    return {name: tuple(split[name]) if isinstance(split[name], list) else split[name] for name in _OF_SPLIT}
