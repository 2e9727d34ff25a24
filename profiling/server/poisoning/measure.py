"""Honest, poisoned and skewed runs in simulation, judged by the functions that the server calls."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gkt_core.algorithms.base import RoundResult, evaluate_images
from gkt_core.algorithms.fedgkt import FedGKT
from gkt_core.algorithms.server_round import evaluate
from gkt_core.algorithms.simulation.federation import Federation, load_federation
from gkt_core.config.run_config import RunConfig
from gkt_core.data.datasets import Dataset, load_dataset
from gkt_core.data.split import SplitOptions, split_dataset
from gkt_core.nn.execution import prepare_torch
from profiling.frame import Announce
from profiling.server.poisoning.attacks import ATTACKS, PoisonedUploads
from profiling.server.poisoning.options import PoisoningOptions
from server_app.quarantine import Watch
from server_app.store import BlobStore


class WatchedFedGKT(FedGKT):
    """FedGKT with an attacker among the devices and the server's watch over their uploads.

    Attributes:
        quarantined: Reason and round of each device that was quarantined.
    """

    def __init__(
        self,
        federation: Federation,
        config: RunConfig,
        *,
        attack: str,
        attacker: str,
        folder: Path,
        **options: Any,
    ) -> None:
        super().__init__(federation, config, **options)
        self._attack, self._attacker = attack, attacker
        self._watch = Watch(BlobStore(folder), config, federation.num_classes)
        self._answered: dict[str, int] = {}
        self.quarantined: dict[str, tuple[int, str]] = {}

    def run_round(
        self, round_num: int, learning_rate_scale: float, on_samples: Callable[[str, int], None]
    ) -> RoundResult:
        """A round of those devices that are not quarantined, as the server's trainer does it."""
        chosen = [client_id for client_id in self._clients if client_id not in self.quarantined]
        uploads = self._collected(chosen, round_num, learning_rate_scale, on_samples)
        if self._config.quarantine:
            rounds = dict.fromkeys(chosen, round_num)
            reasons = self._watch.check(
                uploads.source("train"), rounds=rounds, answered=self._answered, trusted=()
            )
            self.quarantined |= {client_id: (round_num, reason) for client_id, reason in reasons.items()}
            uploads.forget(frozenset(reasons))
            self._watch.tidy(rounds, self._answered)
        source = uploads.source("train")
        loss = self._train(source, round_num, learning_rate_scale, on_samples)
        self._answered |= dict.fromkeys(source.client_ids, round_num)
        result = evaluate(self._server, uploads.source("validation"))
        return RoundResult(loss, result.loss, result.accuracy, uploads.num_bytes, 0)

    def _collected(
        self, chosen: list[str], round_num: int, scale: float, on_samples: Callable[[str, int], None]
    ) -> PoisonedUploads:
        uploads = PoisonedUploads(
            self._spec, self._config, None, attack=self._attack, attacker=self._attacker
        )
        for client_id in chosen:
            self._clients[client_id].train(round_num, scale, lambda num: on_samples("devices", num))
            self._clients[client_id].upload(round_num, uploads)
        return uploads


def measure_poisoning(options: PoisoningOptions, announce: Announce) -> dict[str, Any]:
    """Simulate attacks on a uniform split, with quarantine and without, and honest devices on a skewed one.

    Returns:
        ``runs``, and what they show together as ``summary``.
    """
    prepare_torch("cpu", options.threads)
    runs: list[dict[str, Any]] = []
    for seed in range(options.num_seeds):
        cases = [("none", True), *((attack, True) for attack in ATTACKS)]
        cases += [(attack, False) for attack in ATTACKS] if options.unprotected else []
        for attack, quarantine in cases:
            announce(f"uniform split, seed {seed}: attack {attack}, quarantine {quarantine}")
            runs.append(_run(options, "iid", seed, attack, quarantine))
    for seed in range(options.num_honest_seeds):
        announce(f"skewed split, seed {seed}: honest devices")
        runs.append(_run(options, "dirichlet", seed, "none", True))
    honest = {run["seed"]: run["accuracy"] for run in runs if _is(run, "iid", "none")}
    for run in runs:
        if run["attack"] != "none":
            run["lost_points"] = 100 * (honest[run["seed"]] - run["accuracy"])
    settings = {"data_root": None, "dataset": Path(options.dataset).name}
    return {"settings": settings, "runs": runs, "summary": summarise(runs)}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What all runs together show.

    ``mean_lost_points`` are means over seeds by attack, with quarantine: a single run's accuracy moves by a
    point with its few test images.
    """
    protected = [run for run in runs if run["attack"] != "none" and run["quarantine"]]
    lost: dict[str, list[float]] = {}
    for run in protected:
        lost.setdefault(run["attack"], []).append(run["lost_points"])
    return {
        "mean_lost_points": {attack: float(np.mean(values)) for attack, values in lost.items()},
        "most_lost_points": max((run["lost_points"] for run in protected), default=0.0),
        "most_lost_points_unprotected": max(
            (run["lost_points"] for run in runs if not run["quarantine"]), default=None
        ),
        "attackers": len(protected),
        "attackers_quarantined": sum(run["attacker"] in run["quarantined"] for run in protected),
        "honest_devices": sum(run["num_honest"] for run in runs if run["quarantine"]),
        "honest_devices_of_skewed_splits": sum(
            run["num_honest"] for run in runs if run["partition"] == "dirichlet"
        ),
        "honest_devices_quarantined": sum(
            client_id != run["attacker"] for run in runs for client_id in run["quarantined"]
        ),
    }


def _is(run: dict[str, Any], partition: str, attack: str) -> bool:
    return bool(run["partition"] == partition and run["attack"] == attack)


def _run(
    options: PoisoningOptions, partition: str, seed: int, attack: str, quarantine: bool
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        federation, flip = _federation(options, partition, seed, Path(temporary) / "split")
        config = RunConfig(
            num_clients=options.num_clients,
            rounds=options.rounds,
            server_epochs=options.server_epochs,
            direction="both",
            codec="uint8",
            compress=False,
            horizontal_flip=flip,
            crop_padding=max(1, federation.image_size // (8 if flip else 16)),
            quarantine=quarantine,
            seed=seed,
        )
        # In the middle of the order, another one with every seed.
        candidate = sorted(federation.clients)[(3 + seed) % options.num_clients]
        attacker = "" if attack == "none" else candidate
        algorithm = WatchedFedGKT(
            federation,
            config,
            attack=attack,
            attacker=attacker,
            folder=Path(temporary) / "past",
            edge_network=options.edge_network,
            server_network=options.server_network,
            device=torch.device("cpu"),
        )
        for round_num in range(1, options.rounds + 1):
            algorithm.run_round(round_num, 1.0, lambda phase, num: None)
    accuracies = {
        client_id: evaluate_images(model, federation.test, federation.num_classes).accuracy
        for client_id, model in algorithm.models().items()
        # The same devices in every run of a seed; those that never train would only measure that.
        if client_id != candidate and client_id not in algorithm.quarantined
    }
    return {
        "partition": partition,
        "seed": seed,
        "attack": attack,
        "attacker": attacker,
        "quarantine": quarantine,
        "accuracy": float(np.mean(list(accuracies.values()))),
        "num_honest": options.num_clients - (attack != "none"),
        "quarantined": {
            client_id: {"round_num": round_num, "reason": reason}
            for client_id, (round_num, reason) in sorted(algorithm.quarantined.items())
        },
    }


def _federation(
    options: PoisoningOptions, partition: str, seed: int, folder: Path
) -> tuple[Federation, bool]:
    dataset: Dataset = load_dataset(
        options.dataset,
        image_size=options.image_size,
        limit=options.limit,
        seed=seed,
        data_root=options.data_root,
    )
    split = split_dataset(
        dataset, SplitOptions(options.num_clients, partition, options.dirichlet_alpha, 0.1, seed), folder
    )
    return load_federation(folder), bool(split["horizontal_flip"])
