"""Read and write what the trainer measures of a step, which the store keeps as numbers by name."""

from __future__ import annotations

import math

from server_app.store.sql import RunStore

_PART = "part/"


def part_metrics(parts: dict[str, int]) -> dict[str, float]:
    """Which round of which device a step of the server trained on, as metrics."""
    return {_PART + client_id: float(round_num) for client_id, round_num in parts.items()}


def step_parts(metrics: dict[str, float]) -> dict[str, int]:
    """The inverse of :func:`part_metrics`; nothing for rounds of an older version."""
    return {name.removeprefix(_PART): int(value) for name, value in metrics.items() if name.startswith(_PART)}


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
