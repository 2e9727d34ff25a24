"""``gkt profile chaos``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gkt_core.cli import emit_json
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import MissingExtraError, RunFailedError
from gkt_core.files import check_new_folder, write_atomically


@click.command()
@click.option("--kills", "num_kills", default=20, show_default=True, help="SIGKILLs before the last round.")
@click.option("--seed", default=0, show_default=True, help="Of when what is killed.")
@click.option("--clients", "num_clients", default=3, show_default=True, help="Devices.")
@click.option("--rounds", default=8, show_default=True, help="Rounds.")
@click.option("--server-epochs", default=4, show_default=True, help="The trainer's passes in a round.")
@click.option("--examples", "num_examples", default=480, show_default=True, help="Digits of all devices.")
@click.option("--image-size", default=8, show_default=True, help="Pixels.")
@click.option("--threads", "num_threads", default=1, show_default=True, help="Of trainer and devices each.")
@click.option(
    "--limit-seconds", default=900.0, show_default=True, help="Longer than that neither run may take."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A new folder; by default one below gkt-chaos/, named by the time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json to stdout.")
def chaos(
    *,
    num_kills: int,
    seed: int,
    num_clients: int,
    rounds: int,
    server_epochs: int,
    num_examples: int,
    image_size: int,
    num_threads: int,
    limit_seconds: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Kill server, trainer and devices at random; nothing may be lost.

    Runs FedGKT on the digits twice, with real processes on loopback: once undisturbed, once with SIGKILL
    at random moments, starting again whatever was killed with the same command. Fails unless the server's
    last checkpoint, its model and every device's parameters are byte for byte those of the undisturbed run.
    """
    try:
        from edge_export import ExportOptions, export_bundle  # noqa: PLC0415 - imports extras
        from gkt_core.data.command import SplitOptions, split_dataset  # noqa: PLC0415
        from gkt_core.data.datasets import load_dataset  # noqa: PLC0415
        from profiling.server.chaos.compare import ChaosOptions, compare_runs  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    config = RunConfig(
        num_clients=num_clients,
        rounds=rounds,
        # So that devices are at work long enough to be hit.
        local_epochs=8,
        server_epochs=server_epochs,
        batch_size=16,
        server_batch_size=32,
        horizontal_flip=False,
        crop_padding=1,
        codec="uint8",
        quarantine=False,
        shard_samples=16,
    )
    folder = out or Path("gkt-chaos") / time.strftime("%Y%m%d-%H%M%S")
    check_new_folder(folder)
    console = Console(stderr=True, highlight=False)

    def announce(line: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, soft_wrap=True)

    dataset = load_dataset("digits", image_size=image_size, limit=num_examples)
    split = split_dataset(dataset, SplitOptions(num_clients, "iid", 0.5, 0.1, 0), folder / "data")
    export_bundle(ExportOptions(image_size=image_size, num_classes=dataset.num_classes), folder / "artifacts")
    options = ChaosOptions(
        artifacts=folder / "artifacts",
        data_files=[folder / "data" / client["file"] for client in split["clients"]],
        config=config,
        num_kills=num_kills,
        seed=seed,
        num_threads=num_threads,
        limit_seconds=limit_seconds,
    )
    report = compare_runs(options, folder / "runs", announce)
    write_atomically(folder / "report.json", (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    if as_json:
        emit_json(report)
    else:
        _show(report)
        click.echo(f"report {folder / 'report.json'}")
    if not report["equal"]:
        raise RunFailedError(f"the disturbed run left other bytes: {', '.join(report['differing'])}")


def _show(report: dict[str, Any]) -> None:
    kills = Table("kill", "s", "process", "pid", "run is", "round", "epoch")
    for number, kill in enumerate(report["kills"], start=1):
        values = (f"{kill['seconds']:.1f}", kill["victim"], kill["pid"], kill["phase"], kill["round_num"])
        kills.add_row(str(number), *map(str, values), str(kill["epoch"] or ""))
    hashes = Table("SHA-256", "undisturbed", "disturbed", "")
    disturbed = report["hashes"]["disturbed"]
    for name, found in report["hashes"]["undisturbed"].items():
        same = "equal" if disturbed[name] == found else "DIFFERENT"
        hashes.add_row(name, found[:32], disturbed[name][:32], same)
    Console(width=120).print(kills, hashes)
    seconds = report["seconds"]
    click.echo(
        f"{len(report['kills'])} kills; {seconds['undisturbed']:.0f} s undisturbed, "
        f"{seconds['disturbed']:.0f} s disturbed"
    )
