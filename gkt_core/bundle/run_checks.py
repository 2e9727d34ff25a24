"""Whether a bundle fits a run: temperature, optimizer and classes are fixed inside its graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gkt_core.bundle.manifest import Manifest
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.run_config import CODEC_BITS, RunConfig
from gkt_core.errors import ArtifactError, ConfigError


def check_run(manifest: Manifest, config: RunConfig) -> None:
    """Refuse a run that wants what is not in the exported graphs, or more than devices were promised.

    Raises:
        ConfigError: Another temperature or another optimizer, or features of more bits; names both and the
            options to export with.
    """
    bits = CODEC_BITS[config.codec]
    if manifest.max_bits is not None and bits > manifest.max_bits:
        fitting = [codec for codec, num in CODEC_BITS.items() if num <= manifest.max_bits]
        raise ConfigError(
            f"the run wants features as {config.codec}, {bits} bits a number, the artifacts promise devices "
            f"{manifest.max_bits} at most: "
            + (f"choose --codec {' or '.join(fitting)}, or " if fitting else "")
            + f"export them again with --max-bits {bits}"
        )
    if manifest.temperature != config.temperature:
        raise ConfigError(
            f"the run wants temperature {config.temperature}, the artifacts were exported with "
            f"{manifest.temperature}: export them again with --temperature {config.temperature}"
        )
    if manifest.leakage_penalty != config.leakage_penalty:
        raise ConfigError(
            f"the run wants the leakage penalty {config.leakage_penalty:g}, the artifacts were exported with "
            f"{manifest.leakage_penalty:g}: export them again with "
            f"--leakage-penalty {config.leakage_penalty:g}"
        )
    wanted, exported = (
        _by_option(optimizer) for optimizer in (EdgeOptimizer.of_run(config), manifest.edge_optimizer)
    )
    if any(exported.get(name) != value for name, value in wanted.items()):
        options = "".join(
            f" --{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            for name, value in wanted.items()
            if value
        )
        raise ConfigError(
            f"the run wants {_listed(wanted)} on the devices, the artifacts were exported with "
            f"{_listed(exported)}: export them again with{options}, or change the run's edge_optimizer"
        )


def _by_option(optimizer: EdgeOptimizer) -> dict[str, Any]:
    """Give what a run can ask of this optimizer, by the names of the options of gkt export."""
    names = ("momentum", "nesterov") if optimizer.name == "sgd" else ("amsgrad",)
    settings = optimizer.to_dict()
    return {"optimizer": optimizer.name} | {name: settings[name] for name in ("weight_decay", *names)}


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def check_classes(manifest: Manifest, num_classes: int, owner: str, class_names: Sequence[str] = ()) -> None:
    """Refuse data of other classes than the bundle's, or of the same ones in another order.

    Args:
        manifest: Of the bundle.
        num_classes: Of the data.
        owner: Whose data, for the message.
        class_names: Of the data; none where they are not known.

    Raises:
        ArtifactError: Names both sides.
    """
    if class_names and manifest.class_names:
        check_class_names(class_names, owner, manifest.class_names, "the artifact bundle")
    if num_classes != manifest.num_classes:
        raise ArtifactError(
            f"{owner} has {num_classes} classes, the artifact bundle was made for {manifest.num_classes}: "
            f"export it again with --num-classes {num_classes}"
        )


def check_class_names(ours: Sequence[str], owner: str, theirs: Sequence[str], other: str) -> None:
    """Refuse two lists of classes that differ, in names or in order.

    Raises:
        ArtifactError: Names both lists.
    """
    if list(ours) != list(theirs):
        what = "the same classes in another order" if set(ours) == set(theirs) else "other classes"
        raise ArtifactError(
            f"{owner} has {what}: {_first(ours)}; {other} has {_first(theirs)}: make the file of the device "
            "again with gkt data pack --for the bundle"
        )


def _first(names: Sequence[str]) -> str:
    # They come from another device, and go to a terminal.
    shown = ", ".join(name[:40] if name.isprintable() else ascii(name[:40]) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
