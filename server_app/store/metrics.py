"""Read and write what the trainer measures of a step, which the store keeps as numbers by name."""

from __future__ import annotations

import math
from collections.abc import Collection

from gkt_core.wire.protocol import RoundReport
from server_app.store.records import RoundRecord
from server_app.store.sql import RunStore

_PART, _EDGE = "part/", "edge/"


def edge_metrics(reports: Collection[RoundReport]) -> dict[str, float]:
    """What the devices of a step reported, added up: a status must not read all reports of all rounds."""
    num_examples = sum(report.num_examples for report in reports)
    shares = [report.num_examples / max(1, num_examples) for report in reports]
    summed = {
        "num_examples": float(num_examples),
        "loss": sum(share * report.loss for share, report in zip(shares, reports, strict=True)),
        "accuracy": sum(share * report.accuracy for share, report in zip(shares, reports, strict=True)),
        "images_per_second": sum(report.images_per_second for report in reports),
    }
    return {_EDGE + name: value for name, value in summed.items()}


def edge_summary(store: RunStore, record: RoundRecord) -> dict[str, float]:
    """Give what :func:`edge_metrics` made of a step; of one of an older version, it is made now."""
    kept = {
        name.removeprefix(_EDGE): value for name, value in record.metrics.items() if name.startswith(_EDGE)
    }
    if kept:
        return kept
    # Devices that were quarantined in a round have reported too, and have no part in it.
    parts = {
        name.removeprefix(_PART): int(value)
        for name, value in record.metrics.items()
        if name.startswith(_PART)
    }
    reports = store.past.reports(parts) if parts else store.reports(record.round_num)
    made = edge_metrics(reports.values())
    if "full_rounds" in record.metrics:
        made |= upload_metrics(store, parts)
    return {name.removeprefix(_EDGE): value for name, value in made.items()}


def upload_metrics(store: RunStore, parts: dict[str, int]) -> dict[str, float]:
    """How many bytes of shards a step without rounds was trained on, of these rounds of its devices."""
    shards = [shard for client_id, number in parts.items() for shard in store.shards(number, client_id)]
    return {_EDGE + "upload_bytes": float(sum(shard.upload_bytes for shard in shards))}


def validation_accuracies(store: RunStore) -> list[float]:
    """Validation accuracies of all finished rounds, oldest first: learning rates may depend on them."""
    accuracies: list[float] = []
    for record in store.rounds():
        if not (record.trained_at and record.metrics):
            continue
        # Without rounds, a step counts that completes as many uploads as make one.
        if record.metrics.get("full_rounds", math.inf) > len(accuracies):
            accuracies.append(record.metrics["validation_accuracy"])
    return accuracies
