"""``gkt profile edge``: on the device itself."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from gkt_core.bundle.manifest import ENGINE_FILES
from gkt_core.config.run_config import CODECS
from profiling.device.edge.measure import EdgeOptions, measure_edge
from profiling.frame import emit_report, output_options


@click.command()
@click.option("--artifacts", type=click.Path(path_type=Path), required=True, help="Bundle of gkt export.")
@click.option("--batch-size", default=64, show_default=True, help="Samples in a step and in a shard.")
@click.option("--steps", default=30, show_default=True, help="Warm calls of each workload.")
@click.option("--warmup", default=3, show_default=True, help="Calls before them that do not count.")
@click.option("--cold-runs", default=3, show_default=True, help="Fresh processes for the cold start.")
@click.option("--threads", default=1, show_default=True, help="Threads of the engine.")
@click.option("--pin", "is_pinned", is_flag=True, help="Keep the measuring process on as many cores.")
@click.option(
    "--sustained-seconds",
    "--seconds",
    "sustained_seconds",
    default=0.0,
    show_default=True,
    help="Also train that long without a pause, to show throttling: 600 on a board without a fan.",
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    help="Also train in so many processes at once: what devices on one machine cost each other.",
)
@click.option(
    "--codec", type=click.Choice(CODECS), default="uint8", show_default=True, help="How shards are packed."
)
@click.option(
    "--engine",
    type=click.Choice([name.replace("_", "-") for name in ENGINE_FILES]),
    help="By default the fastest that the bundle holds and that is installed.",
)
@output_options
def edge(
    *,
    artifacts: Path,
    batch_size: int,
    steps: int,
    warmup: int,
    cold_runs: int,
    threads: int,
    is_pinned: bool,
    sustained_seconds: float,
    processes: int,
    codec: str,
    engine: str | None,
    outs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Measure on this device what a training step, extraction and packing cost.

    Needs what a device has: gkt-edge[edge], no PyTorch. Each workload runs in fresh processes, for its cold
    start and its memory. HTML and PNG need gkt-edge[profile]; write --out edge.json here and make the page
    elsewhere with gkt profile show edge.json --out edge.html.
    """
    options = EdgeOptions(
        artifacts=artifacts,
        batch_size=batch_size,
        steps=steps,
        warmup=warmup,
        cold_runs=cold_runs,
        threads=threads,
        is_pinned=is_pinned,
        sustained_seconds=sustained_seconds,
        codec=codec,
        processes=processes,
        engine=None if engine is None else engine.replace("-", "_"),
    )
    with Console(stderr=True).status("starting") as status:
        document = measure_edge(options, on_phase=status.update)
    emit_report(document, outs, as_json)
