"""Honest, poisoned and skewed runs in simulation, judged by the functions that the server calls."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gkt_core.algorithms.base import evaluate_images
from gkt_core.algorithms.simulation.federation import Federation, load_federation
from gkt_core.config.run_config import RunConfig
from gkt_core.data.datasets import Dataset, load_dataset
from gkt_core.data.split import SplitOptions, split_dataset
from gkt_core.nn.execution import prepare_torch
from profiling.frame import Announce
from profiling.server.poisoning.attacks import ATTACKS
from profiling.server.poisoning.honest import KINDS, measure_kind
from profiling.server.poisoning.options import PoisoningOptions
from profiling.server.poisoning.turned import CASES, measure_attack, summarise_attacks
from profiling.server.poisoning.watched import WatchedFedGKT

# Of digits: a crop needs room to move.
_IMAGE_SIZE_OF_KINDS = 16


def measure_poisoning(options: PoisoningOptions, announce: Announce) -> dict[str, Any]:
    """Simulate attacks on a uniform split, with quarantine and without, and honest devices on a skewed one.

    Returns:
        ``runs``, what they show together as ``summary``, ``honest``: devices that look odd, by kind, and
        ``caught``: attacks on devices that train by themselves.
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
    document = {"settings": settings, "runs": runs, "summary": summarise(runs)}
    if options.num_kind_seeds or options.num_attack_seeds:
        image_size = options.image_size or _IMAGE_SIZE_OF_KINDS
        dataset = load_dataset(
            options.dataset, image_size=image_size, limit=options.limit, seed=0, data_root=options.data_root
        )
        if options.num_kind_seeds:
            document["honest"] = _measure_kinds(options, dataset, announce)
        if options.num_attack_seeds:
            document["caught"] = _measure_attacks(options, dataset, announce)
    return document


def _measure_attacks(options: PoisoningOptions, dataset: Dataset, announce: Announce) -> dict[str, Any]:
    """Runs of every attack in every case, and counts of each."""
    runs = []
    for case in CASES:
        for attack in ATTACKS:
            for seed in range(options.num_attack_seeds):
                announce(f"{case.name}, seed {seed}: attack {attack}")
                runs.append(measure_attack(case, attack, dataset, seed, num_clients=options.num_clients))
    return summarise_attacks(runs, dataset.image_size)


def _measure_kinds(options: PoisoningOptions, dataset: Dataset, announce: Announce) -> dict[str, Any]:
    """Runs of honest devices of every odd kind, and counts of each."""
    runs = []
    for kind in KINDS:
        for seed in range(options.num_kind_seeds):
            announce(f"honest devices, seed {seed}: {kind.name}")
            # By turns: devices of a kind among themselves, and a few of them among others.
            runs.append(
                measure_kind(
                    kind,
                    dataset,
                    seed,
                    among=seed % 2 == 1,
                    num_clients=options.num_clients,
                    rounds=options.rounds,
                )
            )
    return summarise_kinds(runs, dataset.image_size)


def summarise_kinds(runs: list[dict[str, Any]], image_size: int) -> dict[str, Any]:
    """Count devices and those of them that were quarantined, by kind and together."""
    kinds = []
    for name in dict.fromkeys(run["kind"] for run in runs):
        mine = [run for run in runs if run["kind"] == name]
        kinds.append(
            {
                "kind": name,
                "num_runs": len(mine),
                "num_devices": sum(run["num_devices"] for run in mine),
                "num_others": sum(run["num_others"] for run in mine),
                "quarantined": [
                    {"client_id": client_id, "seed": run["seed"], "company": run["company"], **held}
                    for run in mine
                    for client_id, held in run["quarantined"].items()
                ],
            }
        )
    return {
        "image_size": image_size,
        "kinds": kinds,
        "num_devices": sum(kind["num_devices"] for kind in kinds),
        "num_others": sum(kind["num_others"] for kind in kinds),
        "num_quarantined": sum(len(kind["quarantined"]) for kind in kinds),
    }


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
            server_network=options.completing_network,
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
        "quarantined": algorithm.quarantined_rounds(),
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
