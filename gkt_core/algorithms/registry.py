"""The algorithms by name, and what each is built from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gkt_core.algorithm_names import ALGORITHMS, own_algorithm
from gkt_core.algorithms.base import Algorithm
from gkt_core.algorithms.centralized import Centralized
from gkt_core.algorithms.ecofed import EcoFed
from gkt_core.algorithms.fedavg import FedAvg
from gkt_core.algorithms.fedgkt import FedGKT
from gkt_core.algorithms.fedgkt_async import AsyncFedGKT
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.algorithms.split_learning import SplitLearning
from gkt_core.config.run_config import RunConfig
from gkt_core.config.upload_schedule import NEVER
from gkt_core.errors import ConfigError
from gkt_core.networks import completing_network
from gkt_core.rounds.staleness import check_mode
from gkt_core.wire.feature_noise import FeatureNoise


@dataclass(frozen=True, slots=True)
class AlgorithmOptions:
    """What to build beside the hyper-parameters.

    Attributes:
        algorithm: A name of :mod:`gkt_core.algorithm_names`, or ``file.py:Class``.
        edge_network: The devices' network in FedGKT and EcoFed.
        server_network: ``resnet55`` or ``resnet109``; the other algorithms train it with the edge network's
            extractor as one network, ResNet-56 or ResNet-110.
        central_network: What centralised training trains, if not that: ``resnet8``, say.
        sent_as: How devices send their images to centralised training, if that counts: ``png``, ``jpeg75``
            or ``jpeg95``.
        device: ``cpu`` or ``cuda``.
        feature_store: ``memory`` or ``disk``.
        replay_period: Rounds between two uploads of EcoFed.
        pretraining_epochs: Epochs of EcoFed's pre-training.
        grouped: Whether FedGKT's devices train all at once; None means on a GPU only.
        initial_edge: File with the weights that FedGKT's devices begin from.
        initial_server: File with the weights that FedGKT's server network begins from.
        noise: What FedGKT's devices do to features before they send them.
        own_settings: Arguments of an algorithm of the user's own, by name.
    """

    algorithm: str
    edge_network: str = "resnet8"
    server_network: str = "resnet55"
    central_network: str | None = None
    sent_as: str | None = None
    device: str = "cpu"
    feature_store: str = "memory"
    replay_period: int = 2
    pretraining_epochs: int = 20
    grouped: bool | None = None
    initial_edge: Path | None = None
    initial_server: Path | None = None
    noise: FeatureNoise | None = None
    own_settings: Mapping[str, Any] = field(default_factory=dict)


def build_algorithm(
    options: AlgorithmOptions, federation: Federation, config: RunConfig, out: Path
) -> Algorithm:
    """Build an algorithm with fresh weights; ``out`` is where features are kept on disk, if they are.

    Raises:
        ConfigError: An unknown name, or no such device on this machine.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but PyTorch finds no GPU here: choose cpu")
    _check(options, config)
    device = torch.device(options.device)
    pair: dict[str, Any] = {
        "edge_network": options.edge_network,
        "server_network": completing_network(options.edge_network, options.server_network),
        "device": device,
    }
    match options.algorithm:
        case "fedgkt":
            folder = out / "features" if options.feature_store == "disk" else None
            pair |= {"initial_edge": options.initial_edge, "initial_server": options.initial_server}
            pair |= {"shard_folder": folder, "noise": options.noise}
            if config.mode == "async":
                return AsyncFedGKT(federation, config, **pair)
            grouped = options.device == "cuda" if options.grouped is None else options.grouped
            return FedGKT(federation, config, **pair, grouped=grouped)
        case "fedavg":
            return FedAvg(federation, config, **pair)
        case "split_learning":
            return SplitLearning(federation, config, **pair)
        case "centralized":
            pair |= {"network": options.central_network, "sent_as": options.sent_as}
            return Centralized(federation, config, **pair)
        case "ecofed":
            epochs = options.pretraining_epochs
            return EcoFed(federation, config, **pair, period=options.replay_period, pretraining_epochs=epochs)
        case own:
            return _own(own_algorithm(own), own, (federation, config), pair | dict(options.own_settings))


def _own(
    build: Callable[..., Any], name: str, given: tuple[Federation, RunConfig], settings: dict[str, Any]
) -> Algorithm:
    """Build an algorithm of the user's own.

    Raises:
        ConfigError: It does not take these arguments, or is none.
    """
    try:
        algorithm = build(*given, **settings)
    except TypeError as error:
        # Of another signature; any other fault of the user's own code keeps its traceback.
        if "argument" not in str(error):
            raise
        raise ConfigError(
            f"{name} does not take what it is built with (a federation, a config, and by name "
            f"{', '.join(settings)}): {error}"
        ) from error
    if not isinstance(algorithm, Algorithm):
        raise ConfigError(f"{name} makes a {type(algorithm).__name__}, expected a gkt_core.Algorithm")
    return algorithm


def _check(options: AlgorithmOptions, config: RunConfig) -> None:
    """Refuse options that this algorithm would pass over.

    Raises:
        ConfigError: Names what to leave out.
    """
    if options.own_settings and options.algorithm in ALGORITHMS:
        raise ConfigError(
            f"{options.algorithm} has no settings of its own: leave out {', '.join(options.own_settings)}"
        )
    if config.mode == "async" and options.algorithm != "fedgkt":
        raise ConfigError(f"mode is 'async', but {options.algorithm} has rounds: only fedgkt can do without")
    if config.server_ema and options.algorithm in ("fedavg", "split_learning"):
        raise ConfigError(
            f"server_ema is {config.server_ema}, but {options.algorithm} has no network of the server's: "
            "leave out --server-ema"
        )
    given = options.initial_edge or options.initial_server
    if given and options.algorithm != "fedgkt":
        raise ConfigError(f"{options.algorithm} begins from random weights: leave out {given}")
    if options.noise is not None and options.noise.is_on and options.algorithm != "fedgkt":
        raise ConfigError(
            f"{options.algorithm} knows no noise on features: leave out --feature-clip and --feature-noise"
        )
    if options.noise is not None and options.noise.label_privacy and options.algorithm != "fedgkt":
        raise ConfigError(f"{options.algorithm} sends labels as they are: leave out --label-privacy")
    if options.sent_as and options.algorithm != "centralized":
        raise ConfigError(f"{options.algorithm} sends no images: leave out --images-sent-as")
    if not config.uploads_every_round and options.algorithm != "fedgkt":
        raise ConfigError(f"uploads is {config.uploads!r}, but only fedgkt has a schedule: leave it out")
    if config.leakage_penalty and options.algorithm != "fedgkt":
        raise ConfigError(f"{options.algorithm} has no penalty on leakage: leave out --leakage-penalty")
    if config.share_extractor != NEVER and options.algorithm != "fedgkt":
        raise ConfigError(f"{options.algorithm} shares no extractors: leave out --share-extractor")
    if config.feature_augmentation != "none" and options.algorithm not in ("fedgkt", "ecofed"):
        raise ConfigError(f"{options.algorithm} keeps no features: leave out --feature-augmentation")
    check_mode(config)
