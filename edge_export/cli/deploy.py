"""``gkt deploy``: the combined model as files for production."""

from __future__ import annotations

import dataclasses

import click
from rich.table import Table

from edge_export.cli.options import DeployOptions
from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.data.private_data import load_private_data, load_test_data
from gkt_core.errors import DatasetError, needs
from gkt_core.files import new_folder
from gkt_core.terminal import console


@click.command(
    cls=Command, example="gkt deploy --model model.onnx --data client-000.npz --test test.npz --out deployed"
)
@dataclass_options(DeployOptions)
@json_option("the measurements as JSON")
def deploy(options: DeployOptions, as_json: bool) -> None:
    """Write a combined model as fp32 and int8, and measure accuracy, size and latency of both.

    model_fp32.onnx has batch norm folded into its convolutions. model_int8.onnx is statically quantised by
    ONNX Runtime's quantiser. Both run on plain ONNX Runtime, and say of themselves what the model says, with
    the accuracy that was measured. The folder is written whole or not at all.
    """
    with needs("export"):
        from edge_export import deployment  # noqa: PLC0415 - imports onnx
    validation, test = load_private_data(options.data).validation, load_test_data(options.test)
    if len(validation) == 0:
        raise DatasetError(
            f"{options.data} holds no validation samples, which calibrate int8: split the data again"
        )
    if validation.images.shape[1] != test.images.shape[1]:
        raise DatasetError(
            f"{options.data} has images of {validation.images.shape[1]} px, {options.test} of "
            f"{test.images.shape[1]}: give two files of one gkt data split"
        )
    with new_folder(options.out) as folder:
        fp32, int8 = folder / "model_fp32.onnx", folder / "model_int8.onnx"
        deployment.fold(options.model, fp32)
        deployment.quantise(fp32, validation, int8)
        measured = [deployment.measure(path, test) for path in (fp32, int8)]
        if options.is_split:
            halves = folder / "extractor.onnx", folder / "server.onnx"
            deployment.split(options.model, *halves)
            measured += [deployment.Measured(path.name, path.stat().st_size) for path in halves]
        measured = deployment.identified(options.model, folder, measured)
    if as_json:
        emit_json({"files": [dataclasses.asdict(each) for each in measured], "num_test_examples": len(test)})
        return
    table = Table(title=f"{options.out}, {len(test)} test images, one thread", title_justify="left")
    for column in ("file", "bytes", "accuracy", "latency, ms"):
        table.add_column(column, justify="left" if column == "file" else "right")
    for each in measured:
        accuracy = "" if each.accuracy is None else f"{each.accuracy:.4f}"
        latency = "" if each.latency_ms is None else f"{each.latency_ms:.2f}"
        table.add_row(each.file, f"{each.num_bytes:,}", accuracy, latency)
    console().print(table)
