"""The command ``gkt simulate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gkt_core.bundle.bundle_files import sha256_of
from gkt_core.cli import emit_json
from gkt_core.config.network_options import NetworkName, dataset_options, network_options
from gkt_core.config.run_config import RunConfig
from gkt_core.config.run_options import build_run_config, run_config_options
from gkt_core.data.private_data import SPLIT_NAME
from gkt_core.errors import ConfigError, MissingExtraError
from gkt_core.networks import FULL_NETWORKS, edge_network_names
from gkt_core.wire.feature_noise import FeatureNoise

# Not imported from gkt_core.algorithms, which loads torch; a test compares the two.
ALGORITHMS = ("fedgkt", "fedavg", "split_learning", "centralized", "ecofed")
SIMULATION_DEFAULTS: dict[str, dict[str, Any]] = {
    "fedgkt": {"rounds": 10},
    "fedavg": {"rounds": 10, "local_epochs": 5},
    "split_learning": {"rounds": 10, "local_epochs": 5},
    "centralized": {"rounds": 10, "local_epochs": 5},
    "ecofed": {"rounds": 10, "codec": "uint8"},
}
_PRETRAINING_SHARE = 0.1


def _default_texts() -> dict[str, str]:
    """What ``--help`` says of defaults that depend on algorithm or dataset."""
    plain = RunConfig().to_dict()
    texts = {
        "num_clients": f"{plain['num_clients']}, or as many as --split holds",
        "horizontal_flip": "as suits the dataset",
        "crop_padding": "an eighth of the image's side, or a sixteenth where images are not flipped",
    }
    for name in {name for defaults in SIMULATION_DEFAULTS.values() for name in defaults}:
        algorithms: dict[Any, list[str]] = {}
        for algorithm, defaults in SIMULATION_DEFAULTS.items():
            algorithms.setdefault(defaults.get(name, plain[name]), []).append(algorithm)
        if len(algorithms) == 1:
            texts[name] = str(next(iter(algorithms)))
        else:
            texts[name] = "; ".join(f"{value} for {', '.join(of)}" for value, of in algorithms.items())
    return texts


@click.command()
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default="fedgkt", show_default=True)
@dataset_options
@click.option(
    "--split",
    type=click.Path(path_type=Path),
    help="Use this folder of gkt data split, so that several methods see the same split.",
)
@network_options
@click.option(
    "--central-model",
    "central_network",
    type=NetworkName(lambda: edge_network_names() + FULL_NETWORKS),
    help="What --algorithm centralized trains, if not the large network.",
)
@click.option("--init-edge", type=click.Path(path_type=Path), help="FedGKT: .safetensors to begin from.")
@click.option("--init-server", type=click.Path(path_type=Path), help="FedGKT: .safetensors to begin from.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--grouped/--one-by-one",
    default=None,
    help="FedGKT: train all devices at once, or one after another. [default: at once on a GPU]",
)
@click.option("--threads", "num_threads", default=0, show_default=True, help="CPU threads; 0 for all cores.")
@click.option(
    "--feature-store",
    type=click.Choice(["memory", "disk"]),
    default="memory",
    show_default=True,
    help="Where FedGKT keeps a round's features.",
)
@click.option(
    "--pretraining-share", type=float, help="EcoFed: images held back from every device. [default: 0.1]"
)
@click.option("--pretraining-epochs", default=20, show_default=True, help="EcoFed: epochs over them.")
@click.option("--replay-period", default=2, show_default=True, help="EcoFed: rounds between two uploads.")
@click.option("--feature-clip", default=0.0, help="FedGKT: limit features to -C..C before they are sent.")
@click.option("--feature-noise", default=0.0, help="FedGKT: Gaussian noise on features; its deviation.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Output folder; an unfinished run goes on."
)
@click.option("--json", "as_json", is_flag=True, help="Print result.json to stdout.")
@run_config_options(defaults=_default_texts(), leave_out=("quarantine",))
def simulate(
    *,
    algorithm: str,
    dataset: str,
    partition: str,
    dirichlet_alpha: float,
    validation_share: float,
    image_size: int | None,
    limit: int | None,
    split: Path | None,
    data_root: Path,
    edge_network: str,
    server_network: str,
    central_network: str | None,
    init_edge: Path | None,
    init_server: Path | None,
    device: str,
    grouped: bool | None,
    num_threads: int,
    feature_store: str,
    pretraining_share: float | None,
    pretraining_epochs: int,
    replay_period: int,
    feature_clip: float,
    feature_noise: float,
    out: Path,
    as_json: bool,
    **hyper_parameters: Any,
) -> None:
    """Run an algorithm over simulated devices and measure it.

    Writes metrics.jsonl, timings.jsonl, result.json (accuracy by class and the confusion matrix included),
    curves.png, confusion.png and the split into --out. The same command goes on where a stopped one was,
    with the same final numbers. The test set is looked at once.
    """
    if replay_period < 1 or pretraining_epochs < 1 or num_threads < 0:
        raise ConfigError("--replay-period and --pretraining-epochs must be at least 1, --threads at least 0")
    noise = FeatureNoise(feature_clip, feature_noise)
    defaults = SIMULATION_DEFAULTS[algorithm]
    given = {name: value for name, value in hyper_parameters.items() if value is not None}
    build_run_config(given, defaults=defaults)
    try:
        # torch is an extra, and slow to load
        from gkt_core.algorithms.registry import AlgorithmOptions, build_algorithm  # noqa: PLC0415
        from gkt_core.algorithms.runner import METRICS_NAME, Listener, run_algorithm  # noqa: PLC0415
        from gkt_core.algorithms.simulation.federation import load_federation  # noqa: PLC0415
        from gkt_core.nn.execution import prepare_torch  # noqa: PLC0415
        from profiling.experiments.simulate.curves import write_confusion, write_curves  # noqa: PLC0415
        from profiling.experiments.simulate.live import SimulationDisplay  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "all") from error
    prepare_torch(device, num_threads)
    if split is None:
        if pretraining_share is None:
            pretraining_share = _PRETRAINING_SHARE if algorithm == "ecofed" else 0.0
        num_clients = given.get("num_clients", RunConfig().num_clients)
        folder = _make_split(
            dataset, num_clients, partition, dirichlet_alpha, validation_share, image_size, limit,
            pretraining_share, given.get("seed", 0), data_root, out,
        )  # fmt: skip
    else:
        folder = split
    federation = load_federation(folder)
    described = json.loads((folder / SPLIT_NAME).read_text(encoding="utf-8"))
    flip = bool(described["horizontal_flip"])
    derived = {
        "num_clients": len(federation.clients),
        "horizontal_flip": flip,
        "crop_padding": max(1, federation.image_size // (8 if flip else 16)),
    }
    config = build_run_config(given, defaults=defaults | derived)
    if config.num_clients != len(federation.clients):
        raise ConfigError(f"--clients is {config.num_clients}, {folder} holds {len(federation.clients)}")
    options = AlgorithmOptions(
        algorithm=algorithm,
        edge_network=edge_network,
        server_network=server_network,
        central_network=central_network,
        device=device,
        feature_store=feature_store,
        replay_period=replay_period,
        pretraining_epochs=pretraining_epochs,
        grouped=grouped,
        initial_edge=init_edge,
        initial_server=init_server,
        noise=noise,
    )
    built = build_algorithm(options, federation, config, out)
    settings = {
        "algorithm": algorithm,
        "dataset": described["dataset"],
        "partition": described["partition"],
        "dirichlet_alpha": described["dirichlet_alpha"],
        "num_examples": federation.num_examples,
        "edge_network": edge_network,
        "server_network": server_network,
        "central_network": central_network,
        "replay_period": replay_period,
        "pretraining_epochs": pretraining_epochs,
        "init_edge": None if init_edge is None else sha256_of(init_edge),
        "init_server": None if init_server is None else sha256_of(init_server),
        # Only where it is used, so that a run of an earlier version goes on.
        **({"feature_clip": feature_clip, "feature_noise": feature_noise} if noise.is_on else {}),
        **config.to_dict(),
    }
    with SimulationDisplay(algorithm, config.rounds) as display:
        listener = Listener(display.samples, display.round)
        result = run_algorithm(built, federation, out, config=config, settings=settings, listener=listener)
    metrics = [json.loads(line) for line in (out / METRICS_NAME).read_text(encoding="utf-8").splitlines()]
    title = f"{algorithm}, {Path(described['dataset']).name}, {config.num_clients} devices"
    write_curves(out / "curves.png", metrics, result, title)
    write_confusion(out / "confusion.png", result, f"{title}: test images")
    if as_json:
        emit_json(result)
        return
    click.echo(
        f"{algorithm}: test accuracy {result['test_accuracy']:.4f}, "
        f"validation {result['validation_accuracy']:.4f}, "
        f"{result['upload_bytes']:,} bytes up, {result['download_bytes']:,} down; {out / 'result.json'}"
    )
    tested = [item for item in result["per_class_accuracy"].items() if item[1] is not None]
    by_class = sorted(tested, key=lambda item: item[1])
    (worst, lowest), (best, highest) = by_class[0], by_class[-1]
    click.echo(f"by class: from {lowest:.4f} ({worst}) to {highest:.4f} ({best}); {out / 'confusion.png'}")


def _make_split(
    dataset: str,
    num_clients: int,
    partition: str,
    dirichlet_alpha: float,
    validation_share: float,
    image_size: int | None,
    limit: int | None,
    pretraining_share: float,
    seed: int,
    data_root: Path,
    out: Path,
) -> Path:
    """Split the dataset into ``out/data``, once."""
    from gkt_core.data.command import SplitOptions, split_dataset  # noqa: PLC0415
    from gkt_core.data.datasets import load_dataset  # noqa: PLC0415

    folder = out / "data"
    if (folder / SPLIT_NAME).is_file():
        return folder
    loaded = load_dataset(dataset, image_size=image_size, limit=limit, seed=seed, data_root=data_root)
    options = SplitOptions(num_clients, partition, dirichlet_alpha, validation_share, seed, pretraining_share)
    split_dataset(loaded, options, folder)
    return folder
