"""``gkt profile compare``: edge networks beside the networks that they help to train."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from gkt_core.errors import MissingExtraError
from profiling.frame import emit_report, output_options


@click.command()
@click.option("--num-classes", default=10, show_default=True, help="Number of classes.")
@click.option("--image-size", default=32, show_default=True, help="Pixels; a multiple of 4.")
@click.option("--batch-size", default=64, show_default=True, help="Samples in a timed step.")
@click.option(
    "--steps",
    default=40,
    show_default=True,
    help="Measured turns: a step of each network and engine, several of short ones.",
)
@click.option("--warmup", default=2, show_default=True, help="Steps of each before measuring.")
@click.option("--threads", default=1, show_default=True, help="Threads of either engine.")
@click.option("--pin", "is_pinned", is_flag=True, help="Keep the process on as many cores.")
@click.option(
    "--memory/--no-memory",
    "with_memory",
    default=True,
    show_default=True,
    help="Whether to measure peak memory, each in a fresh process.",
)
@click.option("--samples", default=50_000, show_default=True, help="For totals of a run: samples.")
@click.option("--clients", default=16, show_default=True, help="For totals of a run: devices.")
@click.option("--rounds", default=200, show_default=True, help="For totals of a run: rounds.")
@click.option("--local-epochs", default=1, show_default=True, help="For totals of a run: E_c.")
@click.option("--server-epochs", default=20, show_default=True, help="For totals of a run: E_s.")
@output_options
def compare(
    *,
    num_classes: int,
    image_size: int,
    batch_size: int,
    steps: int,
    warmup: int,
    threads: int,
    is_pinned: bool,
    with_memory: bool,
    samples: int,
    clients: int,
    rounds: int,
    local_epochs: int,
    server_epochs: int,
    outs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Compare the edge networks with ResNet-56 and ResNet-110, as FedAvg's devices would train them.

    Counts parameters, MACs and FLOPs; times full training steps on ONNX Runtime and PyTorch, all in one
    interleaved run; measures peak memory in fresh processes. Ten to fifteen minutes on one core.
    """
    try:
        from profiling.counted.run_cost import RunSize  # noqa: PLC0415
        from profiling.device.compare.measure import CompareOptions, compare_networks  # noqa: PLC0415 - imports torch

        options = CompareOptions(
            num_classes=num_classes,
            image_size=image_size,
            batch_size=batch_size,
            steps=steps,
            warmup=warmup,
            threads=threads,
            is_pinned=is_pinned,
            with_memory=with_memory,
            run=RunSize(
                samples=samples,
                clients=clients,
                rounds=rounds,
                local_epochs=local_epochs,
                server_epochs=server_epochs,
            ),
        )
        with Console(stderr=True).status("starting") as status:
            report = compare_networks(options, on_phase=status.update)
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_module(str(error.name), "export,profile") from error
    emit_report(report, outs, as_json)
