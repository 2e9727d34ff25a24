"""What the README says of the server, a line from each report of a benchmark, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiling.frame.units import format_bytes

Document = Mapping[str, Any]


def chaos_block(document: Document) -> list[str]:
    """How often what was killed, and what was left."""
    seconds, kills = document["seconds"], document["kills"]
    verdict = "equal byte for byte" if document["equal"] else f"NOT EQUAL: {', '.join(document['differing'])}"
    return [
        f"- `make chaos KILLS={document['settings']['num_kills']} SEED={document['settings']['seed']}`: "
        f"{len(kills)} SIGKILLs; checkpoints and models of server and devices are {verdict} to those of "
        f"the run that was left alone ({seconds['undisturbed']:.0f} s, with the kills "
        f"{seconds['disturbed']:.0f} s)."
    ]


def load_block(document: Document) -> list[str]:
    """Devices at once, and the memory of the server's processes."""
    devices, settings = document["devices"], document["settings"]
    peaks = " and ".join(
        f"{name} {format_bytes(found['during']['peak_pss_bytes'])}"
        for name, found in document["memory"].items()
    )
    grown = f"GROWS: {', '.join(document['grows'])}" if document["grows"] else "does not grow with the rounds"
    return [
        f"- `make bench-devices`: {settings['num_devices']} devices at once, {settings['rounds']} rounds, "
        f"{devices['num_requests']:,} requests, the longest {devices['longest_request_seconds']:.1f} s; peak "
        f"memory {peaks}, which {grown}."
    ]


def ingest_block(document: Document) -> list[str]:
    """Bytes a CPU-second beside nginx and the ceiling."""
    ours, nginx, ceiling = (format_bytes(document[name]) for name in ("ours", "nginx", "ceiling"))
    return [
        f"- `make bench-ingest`: {ours} of 4 MiB shards a CPU-second; nginx, which only stores them, "
        f"{nginx}; SHA-256, a look at every value and a file in plain Python, {ceiling}: "
        f"{document['ratio']:.2f} of nginx, {document['ratio_to_ceiling']:.2f} of that ceiling."
    ]


def trainer_block(document: Document) -> list[str]:
    """The trainer beside a bare loop, and its memory with eight times the samples."""
    ratio, memory = document["ratio"], document["memory"]
    line = (
        f"- `gkt profile trainer`: {ratio['median']:.2f} of the samples a second of a bare PyTorch loop over "
        f"tensors in memory ({ratio['lowest']:.2f} to {ratio['highest']:.2f} in {ratio['n']} turns)"
    )
    if memory:
        few, many = memory["small"], memory["large"]
        line += (
            f"; with {many['num_examples'] // few['num_examples']} times as many samples its memory, mapped "
            f"files apart, is {many['anonymous_bytes'] / few['anonymous_bytes']:.2f} of what it was"
        )
    return [line + "."]


def poisoning_block(document: Document) -> list[str]:
    """What one attacker of eight costs, and whether honest devices are left alone."""
    found, settings = document["summary"], document["settings"]
    skewed = settings["dirichlet_alpha"]
    return [
        f"- `gkt profile poisoning`: one of {settings['num_clients']} devices attacks "
        f"({settings['dataset']}; random features, shifted labels or hostile logits, {settings['num_seeds']} "
        f"seeds): {found['attackers_quarantined']} of {found['attackers']} attackers are quarantined, the "
        f"others lose {max(found['mean_lost_points'].values()):.1f} points (mean over seeds; at most "
        f"{found['most_lost_points']:.1f}) with its samples missing; "
        f"{found['honest_devices_quarantined']} of {found['honest_devices']} honest devices are, "
        f"{found['honest_devices_of_skewed_splits']} of them with Dirichlet {skewed} splits."
    ]


# Commands of the reports that ``gkt profile all`` does not make, as they can take longer or need a program.
SERVER_COMMANDS = {
    "chaos": "make chaos KILLS=20 SEED=7 ARGS='--out profiling/results/chaos.json'",
    "load": "make bench-devices ARGS='--out profiling/results/load.json'",
    "ingest": "make bench-ingest > profiling/results/ingest.json",
    "trainer": "gkt profile trainer --out profiling/results/trainer.json",
    "poisoning": "gkt profile poisoning --out profiling/results/poisoning.json",
}
