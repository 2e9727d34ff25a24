"""``gkt profile compare``: edge networks beside the networks that they help to train."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from gkt_core.errors import MissingExtraError
from profiling.compare import CompareOptions, compare_networks
from profiling.report import emit_report, output_options


@click.command()
@click.option("--num-classes", default=10, show_default=True, help="Number of classes.")
@click.option("--image-size", default=32, show_default=True, help="Pixels; a multiple of 4.")
@click.option("--batch-size", default=64, show_default=True, help="Samples in a timed step.")
@click.option("--steps", default=10, show_default=True, help="Measured steps of each network and engine.")
@click.option("--warmup", default=2, show_default=True, help="Steps of each before measuring.")
@click.option("--threads", default=1, show_default=True, help="Threads of either engine.")
@output_options
def compare(
    *,
    num_classes: int,
    image_size: int,
    batch_size: int,
    steps: int,
    warmup: int,
    threads: int,
    outs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Compare the edge networks with ResNet-56 and ResNet-110.

    Counts parameters, MACs and FLOPs, and times full training steps on this machine: ResNet-8 on ONNX
    Runtime and PyTorch, the large networks on PyTorch, interleaved. Half a minute to a minute on one core.
    """
    options = CompareOptions(
        num_classes=num_classes,
        image_size=image_size,
        batch_size=batch_size,
        steps=steps,
        warmup=warmup,
        threads=threads,
    )
    try:
        with Console(stderr=True).status("starting") as status:
            report = compare_networks(options, on_phase=status.update)
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_module(str(error.name), "export,profile") from error
    emit_report(report, outs, as_json)
