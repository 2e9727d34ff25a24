"""Simulate from Python: one call from a federation to curves, accuracies and PyTorch modules."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gkt_core.algorithm_names import register_algorithm, simulation_defaults
from gkt_core.algorithms.base import Algorithm, RoundResult
from gkt_core.algorithms.registry import AlgorithmOptions, build_algorithm
from gkt_core.algorithms.runner import METRICS_NAME, Listener, run_algorithm
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.config.precision import with_precision
from gkt_core.config.run_config import RunConfig, build_run_config
from gkt_core.data.augment import view_defaults
from gkt_core.errors import ConfigError
from gkt_core.networks import completing_network
from gkt_core.nn.execution import torch_threads


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a simulation came to.

    Attributes:
        algorithm: What was run, with its networks.
        config: The hyper-parameters, those that were not given included.
        curves: By quantity one value a round: ``train_loss``, ``validation_loss``, ``validation_accuracy``
            (0..1), ``upload_bytes``, ``download_bytes``, and further ones of the algorithm.
        result: What ``gkt simulate`` writes into ``result.json``.
    """

    algorithm: Algorithm
    config: RunConfig
    curves: Mapping[str, list[float]]
    result: Mapping[str, Any]

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """The final models by owner: images ``[N, 3, S, S] float32`` in 0..1 to logits ``[N, C]``."""
        return self.algorithm.models()

    @property
    def test_accuracy(self) -> float:
        """Mean accuracy of the final models on the test images, 0..1."""
        return float(self.result["test_accuracy"])


def simulate(
    federation: Federation,
    algorithm: str | Callable[..., Algorithm] = "fedgkt",
    *,
    edge_network: str = "resnet8",
    server_network: str = "resnet55",
    device: str = "cpu",
    num_threads: int = 0,
    settings: Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    on_round: Callable[[int, RoundResult], None] = lambda round_num, result: None,
    **hyper_parameters: Any,
) -> Simulation:
    """Run an algorithm over simulated devices to its end, as ``gkt simulate`` does, with the same numbers.

    Args:
        federation: The devices' data.
        algorithm: A built-in or registered name, ``file.py:Class``, or the subclass of
            :class:`gkt_core.Algorithm` itself.
        edge_network: What devices train.
        server_network: What completes it; behind a narrow tap with strides that suit it.
        device: ``cpu`` or ``cuda``.
        num_threads: CPU threads; 0 leaves PyTorch's number as it is. Another number gives other digits.
        settings: Arguments of an algorithm of one's own.
        out: A folder, to keep metrics and checkpoints in and to go on from; by default nothing is kept.
        on_round: Hears each round's number, from 1, and result.
        **hyper_parameters: Fields of :class:`gkt_core.RunConfig`: ``rounds=5, server_epochs=2``. Views are by
            default those of the command: mirrored if the federation's images may be, and crops.

    Raises:
        ConfigError: A name or a value is wrong, or ``out`` holds a run with other settings.
        GKTError: Training diverged.
    """
    server_network = completing_network(edge_network, server_network)
    name = algorithm if isinstance(algorithm, str) else _registered(algorithm)
    flip = bool(hyper_parameters.get("horizontal_flip", federation.horizontal_flip))
    size = federation.image_size
    defaults = simulation_defaults(name)
    derived = {"num_clients": len(federation.clients), **view_defaults(size, flip)}
    config = build_run_config(hyper_parameters, defaults=defaults | derived)
    config = with_precision(config, device)
    if config.num_clients != len(federation.clients):
        raise ConfigError(
            f"num_clients is {config.num_clients}, the federation has {len(federation.clients)}"
        )
    chosen = AlgorithmOptions(
        name,
        edge_network=edge_network,
        server_network=server_network,
        device=device,
        own_settings=settings or {},
    )
    described = {
        "algorithm": name,
        "edge_network": edge_network,
        "server_network": server_network,
        "num_examples": federation.num_examples,
        **({"own_settings": dict(settings)} if settings else {}),
        **config.to_dict(),
    }
    with ExitStack() as stack:
        folder = Path(out) if out is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(torch_threads(num_threads or torch.get_num_threads()))
        stack.enter_context(_deterministic(device))
        built = build_algorithm(chosen, federation, config, folder)
        listener = Listener(on_round=on_round)
        result = run_algorithm(
            built, federation, folder, config=config, settings=described, listener=listener
        )
        lines = (folder / METRICS_NAME).read_text(encoding="utf-8").splitlines()
    return Simulation(built, config, _curves([json.loads(line) for line in lines]), result)


@contextmanager
def _deterministic(device: str) -> Iterator[None]:
    """Choose kernels as the command does, and undo it."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(device == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _registered(build: Callable[..., Algorithm]) -> str:
    """A name for a class that was given itself: its own, in lower case."""
    name = getattr(build, "__name__", "own").lower().strip("_<>") or "own"
    register_algorithm(name, build)
    return name


def _curves(metrics: list[dict[str, Any]]) -> dict[str, list[float]]:
    names = [field.name for field in dataclasses.fields(RoundResult) if field.name != "details"]
    curves = {name: [float(line[name]) for line in metrics] for name in names}
    for name in sorted({name for line in metrics for name in line["details"]}):
        curves[name] = [float(line["details"].get(name, "nan")) for line in metrics]
    return curves
