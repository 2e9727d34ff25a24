"""Attackers among devices that train by themselves: from the first round on, or after an honest one."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkt_core.data.datasets import Dataset
from profiling.server.poisoning.honest import KINDS, Kind, run_of_kind, usual


@dataclass(frozen=True, slots=True)
class Case:
    """Where an attack happens.

    Attributes:
        name: In words.
        kind: What all devices of the run are.
        from_round: Of the attack: 1, or 2 with an honest round before it.
    """

    name: str
    kind: Kind
    from_round: int


_USUAL = Kind("usual", usual)
CASES = (
    Case("usual devices, from the first round", _USUAL, 1),
    Case("usual devices, from the second round", _USUAL, 2),
    # From the first round on their labels have nobody to be compared with.
    Case("fixed cameras, from the second round", KINDS[0], 2),
)


def measure_attack(
    case: Case, attack: str, dataset: Dataset, seed: int, *, num_clients: int = 8, num_samples: int = 320
) -> dict[str, Any]:
    """Let one of some devices attack, to the end of the first round of its attack.

    Args:
        case: Where.
        attack: One of :data:`profiling.server.poisoning.attacks.ATTACKS`.
        dataset: What images are drawn from.
        seed: Of data and run.
        num_clients: Devices of the run.
        num_samples: Images of each; a few validation samples of photos say little.

    Returns:
        ``case``, ``attack``, ``seed``, ``attacker``, ``num_honest`` and ``quarantined``.
    """
    attacker = f"client-{(3 + seed) % num_clients:03}"
    with tempfile.TemporaryDirectory() as temporary:
        algorithm = run_of_kind(
            case.kind, dataset, seed, Path(temporary),
            num_odd=num_clients, num_clients=num_clients, num_samples=num_samples,
        )  # fmt: skip
        for round_num in range(1, case.from_round + 1):
            if round_num == case.from_round:
                algorithm.attack, algorithm.attacker = attack, attacker
            algorithm.run_devices(round_num, 1.0, lambda phase, num: None)
    return {
        "case": case.name,
        "attack": attack,
        "seed": seed,
        "attacker": attacker,
        "num_honest": num_clients - 1,
        "quarantined": algorithm.quarantined_rounds(),
    }


def summarise_attacks(runs: list[dict[str, Any]], image_size: int) -> dict[str, Any]:
    """Count attackers, those of them that were caught, and honest devices that were, by case and together."""
    cases = []
    for name, attack in dict.fromkeys((run["case"], run["attack"]) for run in runs):
        mine = [run for run in runs if (run["case"], run["attack"]) == (name, attack)]
        cases.append(
            {
                "case": name,
                "attack": attack,
                "num_runs": len(mine),
                "num_caught": sum(run["attacker"] in run["quarantined"] for run in mine),
                "reasons": [
                    run["quarantined"][run["attacker"]]["reason"]
                    for run in mine
                    if run["attacker"] in run["quarantined"]
                ],
                "quarantined": [
                    {"client_id": client_id, "seed": run["seed"], **held}
                    for run in mine
                    for client_id, held in run["quarantined"].items()
                    if client_id != run["attacker"]
                ],
            }
        )
    return {
        "image_size": image_size,
        "cases": cases,
        "num_attackers": len(runs),
        "num_caught": sum(case["num_caught"] for case in cases),
        "num_honest": sum(run["num_honest"] for run in runs),
        "num_quarantined": sum(len(case["quarantined"]) for case in cases),
    }
