"""The commands ``gkt models ...``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gkt_core.bundle.model_identity import ModelIdentity
from gkt_core.cli import Group, emit_json, json_option
from gkt_core.models.describing import Description, describe
from gkt_core.printable import printable

_MOST_NAMES = 12


@click.group(cls=Group)
def models() -> None:
    """Tell what a model file is and where it comes from."""


@models.command(example="gkt models show state/model.onnx")
@click.argument("file", type=click.Path(path_type=Path))
@json_option("everything as JSON")
def show(file: Path, as_json: bool) -> None:
    """Show what a model says of itself: FILE is an .onnx, a bundle or its .zip, or server.safetensors.

    Classes, what it takes and gives, the run that it is from, accuracy, and the hashes of what it was made
    of. Nothing of the file is run; a damaged one is refused.
    """
    description = describe(file)
    if as_json:
        emit_json(description.to_dict())
        return
    lines = dict(_lines(description))
    width = max(map(len, lines))
    for name, text in lines.items():
        click.echo(printable(f"{name:{width}s}  {text}"))


def _lines(description: Description) -> Iterator[tuple[str, str]]:
    yield "file", f"{description.file}: {description.kind}, {description.num_bytes:,} bytes"
    yield "SHA-256", description.sha256
    if description.identity is not None:
        yield from _identity_lines(description.identity)
    elif description.kind != "bundle":
        yield "identity", "none: an earlier version, a device in a browser or another program wrote it"
    skipped = () if description.identity is None else ("class_names", "inputs", "outputs")
    for name, value in description.details.items():
        if name not in skipped and value not in (None, [], {}):
            yield name.replace("_", " "), _shown(value)


def _identity_lines(identity: ModelIdentity) -> Iterator[tuple[str, str]]:
    networks = f"{identity.edge_network} and {identity.server_network}"
    yield "holds", f"{identity.holds}, {identity.precision}: {networks}"
    yield "takes", identity.input_words
    pixels = _shown(identity.pixel_mean), _shown(identity.pixel_std)
    yield "normalises", f"in the graph: mean {pixels[0]}, deviation {pixels[1]}"
    yield "tap", _shown(identity.tap)
    yield "gives", identity.output_words
    yield "classes", _shown(identity.class_names) or f"{identity.num_classes}, without names"
    yield "run", f"{identity.run_id or 'not said'}, {identity.rounds} rounds, gkt-edge {identity.version}"
    accuracies = {"validation": identity.validation_accuracy, "test": identity.test_accuracy}
    known = [f"{name} {value:.4f}" for name, value in accuracies.items() if value is not None]
    yield "accuracy", ", ".join(known) or "not measured"
    for name, sha256 in identity.sources.items():
        yield f"made of {name}", sha256


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    if isinstance(value, list):
        more = [f"and {len(value) - _MOST_NAMES} more"] if len(value) > _MOST_NAMES else []
        return ", ".join([*(_shown(each) for each in value[:_MOST_NAMES]), *more])
    return f"{value:g}" if isinstance(value, float) else str(value)
