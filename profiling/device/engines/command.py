"""``gkt profile engines``: the device's engines beside PyTorch at its best."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from gkt_core.errors import MissingExtraError
from profiling.frame import emit_report, output_options


@click.command()
@click.option("--batch-size", default=64, show_default=True, help="Samples in a timed step.")
@click.option("--image-size", default=32, show_default=True, help="Pixels; a multiple of 4.")
@click.option("--num-classes", default=10, show_default=True, help="Number of classes.")
@click.option("--steps", default=30, show_default=True, help="Measured steps of each candidate.")
@click.option("--warmup", default=3, show_default=True, help="Steps of each before measuring.")
@click.option("--threads", default=1, show_default=True, help="Threads of every candidate.")
@click.option(
    "--memory/--no-memory",
    "with_memory",
    default=True,
    show_default=True,
    help="Whether to measure peak memory, each in a fresh process.",
)
@click.option(
    "--device-run/--no-device-run",
    "with_device_run",
    default=True,
    show_default=True,
    help="Whether to measure the memory of a whole gkt edge run, which takes a server beside it.",
)
@output_options
def engines(
    *,
    batch_size: int,
    image_size: int,
    num_classes: int,
    steps: int,
    warmup: int,
    threads: int,
    with_memory: bool,
    with_device_run: bool,
    outs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Measure ResNet-8's training step on both engines, beside PyTorch and the machine's bound.

    PyTorch gets its best setting: a tuned allocator, channels_last beside its default layout, the full
    networks in their faster one. Also extraction, memory, batch sizes from 1 to 256, one thread and two.
    About four minutes on a machine that is left alone.
    """
    try:
        from profiling.device.engines.measure import EnginesOptions, measure_engines  # noqa: PLC0415 - imports torch

        options = EnginesOptions(
            batch_size=batch_size,
            image_size=image_size,
            num_classes=num_classes,
            steps=steps,
            warmup=warmup,
            threads=threads,
            with_memory=with_memory,
            with_device_run=with_device_run,
        )
        with Console(stderr=True).status("starting") as status:
            report = measure_engines(options, on_phase=status.update)
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    emit_report(report, outs, as_json)
