"""``gkt profile poisoning``: what a poisoned device costs, and whether honest ones are left alone."""

from __future__ import annotations

from typing import Any

from gkt_core.errors import GKTError
from profiling.frame import Document, Measurement, Section
from profiling.frame.tables import table
from profiling.server.poisoning.options import PoisoningOptions

MOST_LOST_POINTS = 2.0


def _attacks(document: Document) -> Section | None:
    settings, summary = document["settings"], document["summary"]
    if not summary["attackers"]:
        return None
    unprotected = summary["most_lost_points_unprotected"]
    without = "" if unprotected is None else f", without quarantine {unprotected:.1f}"
    return Section(
        title=f"One of {settings['num_clients']} devices attacks ({settings['dataset']}): points that the "
        "others lose",
        headings=("attack", "mean over seeds"),
        rows=[
            (attack.replace("_", " "), f"{lost:.1f}") for attack, lost in summary["mean_lost_points"].items()
        ],
        notes=(
            f"{summary['attackers_quarantined']} of {summary['attackers']} attackers are quarantined; their "
            f"samples are missing then, which costs {summary['most_lost_points']:.1f} points at most"
            f"{without}. Of {summary['honest_devices']} honest devices, "
            f"{summary['honest_devices_of_skewed_splits']} of them with Dirichlet "
            f"{settings['dirichlet_alpha']} splits, {summary['honest_devices_quarantined']} are quarantined.",
        ),
    )


def _caught(document: Document) -> Section | None:
    if (caught := document.get("caught")) is None:
        return None
    return Section(
        title=f"One of {document['settings']['num_clients']} devices that train by themselves attacks, "
        f"images of {caught['image_size']} pixels",
        headings=("devices", "attack", "caught", "why, the first time"),
        rows=[
            (
                case["case"],
                case["attack"].replace("_", " "),
                f"{case['num_caught']} of {case['num_runs']}",
                next(iter(case["reasons"]), ""),
            )
            for case in caught["cases"]
        ],
        notes=(
            f"{caught['num_caught']} of {caught['num_attackers']} attackers are quarantined in the first "
            f"round of their attack. Of {caught['num_honest']} honest devices beside them, "
            f"{caught['num_quarantined']} are.",
        ),
    )


def _runs(document: Document) -> Section | None:
    if not document["runs"]:
        return None
    columns = {
        "split": "{partition}, seed {seed}",
        "attack": "{attack:words}",
        "quarantine": "{watched}",
        "test accuracy": "{accuracy:.4f}",
        "points lost": "{lost_points:.2f}",
        "quarantined": "{named}",
    }

    def entry(run: dict[str, Any]) -> dict[str, Any]:
        named = (f"{name} in round {each['round_num']}" for name, each in run["quarantined"].items())
        watched = "on" if run["quarantine"] else "off"
        return {"lost_points": "", **run, "named": ", ".join(named), "watched": watched}

    return table("Runs", columns, map(entry, document["runs"]))


def _kinds(document: Document) -> Section | None:
    # Documents of earlier versions have none.
    if (honest := document.get("honest")) is None:
        return None
    return Section(
        title=f"Honest devices that look odd, images of {honest['image_size']} pixels",
        headings=("kind", "devices", "others beside them", "quarantined"),
        rows=[
            (
                kind["kind"],
                str(kind["num_devices"]),
                str(kind["num_others"]),
                ", ".join(f"{each['client_id']} ({each['reason']})" for each in kind["quarantined"]) or "0",
            )
            for kind in honest["kinds"]
        ],
        notes=(
            f"Of {honest['num_devices']} such devices and {honest['num_others']} usual ones beside them, "
            f"{honest['num_quarantined']} are quarantined. They train by themselves, without soft labels.",
        ),
    )


class Poisoning(Measurement[PoisoningOptions]):
    """Measure what a poisoned device costs, and whether honest ones are left alone.

    One of --clients devices sends random features, shifted labels, hostile logits, another sample's
    features, one map for all samples or a poisoned validation shard, on a uniform split, with the server's
    quarantine and without; and after an honest round, and among fixed cameras. Then honest devices on a
    skewed split, and honest devices that look odd: fixed cameras, night scenes, one class, one image.
    Accuracies are of the other devices' combined models on the test images. Exit code 1: an attack costs more
    than 2 points or is not seen, or an honest device was quarantined.
    """

    name = "poisoning"
    options = PoisoningOptions
    measured_by = "profiling.server.poisoning.measure:measure_poisoning"
    quick = (
        *("--image-size", "8", "--limit", "300", "--seeds", "1", "--honest-seeds", "1", "--rounds", "1"),
        *("--server-epochs", "1", "--protected-only", "--kind-seeds", "0"),
        *("--attack-seeds", "0"),
    )
    error = GKTError
    not_measured = (
        "several attackers that act together",
        "attackers that know what the server looks for",
        "labels that are wrong from the first round on where every device sees another scene",
        "other datasets than this one",
    )
    heading = "Poisoned devices on {settings[dataset]}"
    tables = (_attacks, _caught, _kinds, _runs)

    def failures(self, document: Document) -> list[str]:
        """Name attacks that cost too much, and honest devices that were quarantined."""
        summary = document["summary"]
        failures = [
            f"a device that sends {attack.replace('_', ' ')} costs {lost:.2f} points, at most "
            f"{MOST_LOST_POINTS} are allowed"
            for attack, lost in summary["mean_lost_points"].items()
            if lost > MOST_LOST_POINTS
        ]
        failures += [
            f"{case['case']}: {case['attack'].replace('_', ' ')} was seen {case['num_caught']} times of "
            f"{case['num_runs']}"
            for case in document.get("caught", {}).get("cases", [])
            if case["num_caught"] < case["num_runs"]
        ]
        held = summary["honest_devices_quarantined"]
        held += sum(document.get(part, {}).get("num_quarantined", 0) for part in ("honest", "caught"))
        if held:
            failures.append(f"{held} honest devices were quarantined")
        return failures
