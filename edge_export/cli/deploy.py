"""``gkt deploy``: the combined model as files for production."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from gkt_core.cli import emit_json
from gkt_core.data.private_data import load_private_data, load_test_data
from gkt_core.errors import DatasetError, MissingExtraError
from gkt_core.files import new_folder


@click.command()
@click.option("--model", type=click.Path(path_type=Path), required=True, help="model.onnx of gkt edge run.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="This device's file of gkt data split; its validation images calibrate int8.",
)
@click.option(
    "--test",
    "test_file",
    type=click.Path(path_type=Path),
    required=True,
    help="test.npz of gkt data split; accuracy is measured on it, nothing is chosen by it.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option(
    "--split",
    "is_split",
    is_flag=True,
    help="Also write extractor.onnx (images to features) and server.onnx (features to logits).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON to stdout.")
def deploy(model: Path, data: Path, test_file: Path, out: Path, is_split: bool, as_json: bool) -> None:
    """Write a combined model as fp32 and int8, and measure accuracy, size and latency of both.

    model_fp32.onnx has batch norm folded into its convolutions. model_int8.onnx is statically quantised by
    ONNX Runtime's quantiser. Both run on plain ONNX Runtime. The folder is written whole or not at all.
    """
    try:
        from edge_export import deployment  # noqa: PLC0415 - imports onnx
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "export") from error
    validation, test = load_private_data(data).validation, load_test_data(test_file)
    if len(validation) == 0:
        raise DatasetError(f"{data} holds no validation samples, which calibrate int8: split the data again")
    if validation.images.shape[1] != test.images.shape[1]:
        raise DatasetError(
            f"{data} has images of {validation.images.shape[1]} px, {test_file} of {test.images.shape[1]}: "
            "give two files of one gkt data split"
        )
    with new_folder(out) as folder:
        fp32, int8 = folder / "model_fp32.onnx", folder / "model_int8.onnx"
        deployment.fold(model, fp32)
        deployment.quantise(fp32, validation, int8)
        found = [deployment.measure(path, test) for path in (fp32, int8)]
        if is_split:
            halves = folder / "extractor.onnx", folder / "server.onnx"
            deployment.split(model, *halves)
            found += [deployment.Measured(path.name, path.stat().st_size) for path in halves]
    if as_json:
        emit_json({"files": [dataclasses.asdict(each) for each in found], "num_test_examples": len(test)})
        return
    table = Table(title=f"{out}, {len(test)} test images, one thread", title_justify="left")
    for column in ("file", "bytes", "accuracy", "latency, ms"):
        table.add_column(column, justify="left" if column == "file" else "right")
    for each in found:
        accuracy = "" if each.accuracy is None else f"{each.accuracy:.4f}"
        latency = "" if each.latency_ms is None else f"{each.latency_ms:.2f}"
        table.add_row(each.file, f"{each.num_bytes:,}", accuracy, latency)
    Console().print(table)
