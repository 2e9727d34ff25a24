"""The command ``gkt simulate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gkt_core.algorithm_names import simulation_defaults
from gkt_core.bundle.bundle_files import sha256_of
from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.config.precision import with_precision
from gkt_core.config.run_config import RunConfig, build_run_config, run_config_options
from gkt_core.data.augment import view_defaults
from gkt_core.data.private_data import SPLIT_NAME
from gkt_core.data.split import split_dataset
from gkt_core.errors import ConfigError, needs
from profiling.experiments.simulate.options import (
    LEFT_OUT,
    SimulateOptions,
    default_words,
)


@click.command(
    cls=Command,
    example="gkt simulate --algorithm fedavg --clients 3 --rounds 2 --out fedavg",
)
@dataclass_options(SimulateOptions, leave_out=LEFT_OUT)
@json_option("result.json")
@run_config_options(defaults=default_words(), leave_out=("quarantine",))
def simulate(options: SimulateOptions, hyper_parameters: dict[str, Any], as_json: bool) -> None:
    """Run an algorithm over simulated devices and measure it.

    Writes metrics.jsonl, timings.jsonl, result.json (accuracy by class and the confusion matrix included),
    curves.png, confusion.png, the split and a combined ONNX model into --out. The same command goes on where
    a stopped one was, within a round too, with the same final numbers. The test set is looked at once.
    """
    algorithm, given, own_settings = options.algorithm, hyper_parameters, options.settings
    defaults = simulation_defaults(algorithm)
    build_run_config(given, defaults=defaults)
    with needs("all"):
        # torch is an extra, and slow to load
        from gkt_core.algorithms.registry import AlgorithmOptions, build_algorithm  # noqa: PLC0415
        from gkt_core.algorithms.runner import METRICS_NAME, Listener, run_algorithm  # noqa: PLC0415
        from gkt_core.algorithms.simulation.federation import load_federation  # noqa: PLC0415
        from gkt_core.nn.compiling import Compiler  # noqa: PLC0415
        from gkt_core.nn.execution import prepare_torch  # noqa: PLC0415
        from profiling.experiments.simulate.curves import write_confusion, write_curves  # noqa: PLC0415
        from profiling.experiments.simulate.live import SimulationDisplay  # noqa: PLC0415
        from profiling.experiments.simulate.models import write_models  # noqa: PLC0415
        from profiling.experiments.simulate.tracking import tracked  # noqa: PLC0415
    prepare_torch(options.device, options.num_threads)
    folder, out = options.split or options.out / "data", options.out
    if options.split is None and not (folder / SPLIT_NAME).is_file():
        wanted = options.split_options(given)
        dataset = options.images.load(wanted.seed)
        if dataset.reading:
            click.echo("\n".join(dataset.reading.lines()), err=True)
        split_dataset(dataset, wanted, folder)
    federation = load_federation(folder)
    described = json.loads((folder / SPLIT_NAME).read_text(encoding="utf-8"))
    flip = bool(described["horizontal_flip"])
    derived = {"num_clients": len(federation.clients), **view_defaults(federation.image_size, flip)}
    config = build_run_config(given, defaults=defaults | derived)
    config = with_precision(config, options.device, lambda line: click.echo(line, err=True))
    if config.num_clients != len(federation.clients):
        raise ConfigError(f"--clients is {config.num_clients}, {folder} holds {len(federation.clients)}")
    noise, networks = options.noise, options.networks
    _note(config, networks.edge_network)
    chosen = AlgorithmOptions(
        algorithm=algorithm,
        edge_network=networks.edge_network,
        server_network=networks.completing_network,
        central_network=options.central_network,
        sent_as=options.sent_as,
        device=options.device,
        feature_store=options.feature_store,
        replay_period=options.replay_period,
        pretraining_epochs=options.pretraining_epochs,
        grouped=options.grouped,
        initial_edge=options.init_edge,
        initial_server=options.init_server,
        noise=noise,
        own_settings=own_settings,
    )
    built = build_algorithm(chosen, federation, config, out)
    num_steps = options.num_steps(config, federation.num_examples)
    built.compiler = Compiler(options.compiled, precision=config.precision, num_steps=num_steps)
    settings = {
        "algorithm": algorithm,
        "dataset": described["dataset"],
        "partition": described["partition"],
        "dirichlet_alpha": described["dirichlet_alpha"],
        "num_examples": federation.num_examples,
        "edge_network": networks.edge_network,
        "server_network": networks.completing_network,
        "central_network": options.central_network,
        "replay_period": options.replay_period,
        "pretraining_epochs": options.pretraining_epochs,
        "init_edge": options.init_edge and sha256_of(options.init_edge),
        "init_server": options.init_server and sha256_of(options.init_server),
        # Only where it is used, so that a run of an earlier version goes on.
        **({"sent_as": options.sent_as} if options.sent_as else {}),
        **({"feature_clip": noise.clip, "feature_noise": noise.noise} if noise.is_on else {}),
        **({"label_privacy": noise.label_privacy} if noise.label_privacy else {}),
        **({"own_settings": own_settings} if own_settings else {}),
        **config.to_dict(),
    }
    with (
        tracked(options.tracking, out, settings) as tracking,
        SimulationDisplay(algorithm, config.rounds) as display,
    ):
        listener = Listener(display.samples, tracking.heard(display.round))
        result = run_algorithm(
            built,
            federation,
            out,
            config=config,
            settings=settings,
            listener=listener,
            save_minutes=options.save_minutes,
        )
        tracking.end(result)
    written = write_models(built.models(), result, federation, networks, folder, out, options.num_models)
    metrics = [json.loads(line) for line in (out / METRICS_NAME).read_text(encoding="utf-8").splitlines()]
    title = f"{algorithm}, {Path(described['dataset']).name}, {config.num_clients} devices"
    write_curves(out / "curves.png", metrics, result, title)
    write_confusion(out / "confusion.png", result, f"{title}: test images")
    if as_json:
        emit_json(result)
        return
    _print(algorithm, result, out)
    for path in written:
        click.echo(f"combined model {path}: gkt models show {path}")


def _print(algorithm: str, result: dict[str, Any], out: Path) -> None:
    click.echo(
        f"{algorithm}: test accuracy {result['test_accuracy']:.4f}, "
        f"validation {result['validation_accuracy']:.4f}, "
        f"{result['upload_bytes']:,} bytes up, {result['download_bytes']:,} down; {out / 'result.json'}"
    )
    tested = [item for item in result["per_class_accuracy"].items() if item[1] is not None]
    by_class = sorted(tested, key=lambda item: item[1])
    (worst, lowest), (best, highest) = by_class[0], by_class[-1]
    click.echo(f"by class: from {lowest:.4f} ({worst}) to {highest:.4f} ({best}); {out / 'confusion.png'}")


def _note(config: RunConfig, edge_network: str) -> None:
    """Say what of the run is not what it seems."""
    from gkt_core.rounds.feature_views import inexact_views  # noqa: PLC0415 - what it imports takes a while

    if inexact := inexact_views(config, edge_network):
        click.echo(inexact, err=True)
