"""What changed between two documents: for times only what noise does not explain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gkt_core.errors import InputError
from profiling.frame.diff.values import flat_conditions, flat_ratios, flat_values
from profiling.frame.measuring.step_time import NOISY_DRIFT, StepTime

SCHEMA = "gkt-profile-diff/1"
# Two runs on one machine must agree on a ratio so far.
RATIO_LIMIT = 0.10
# Two equal processes differ by so much in memory: allocators and page sizes are no clockwork.
MEMORY_MARGIN = 0.05
WITHIN_NOISE, EQUAL = "within noise", "equal"


def compare_documents(a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """Compare two documents of one schema.

    A time has changed when the confidence intervals of both medians are apart **and** the medians differ by
    more than 5 % and by more than either run drifted by itself. Memory has changed beyond 5 %. Everything
    else is counted, not measured, and has changed if it differs at all. Ratios agree within 10 %.

    Args:
        a: The one before.
        b: The one after.
        names: What to call them.

    Returns:
        The document; docs/results-format.md describes every key.

    Raises:
        InputError: They are of different kinds.
    """
    if a["schema"] != b["schema"]:
        raise InputError(
            f"{names[0]} is a {a['schema']}, {names[1]} a {b['schema']}: compare two files of one command"
        )
    first, second = flat_values(a), flat_values(b)
    changes = [_change(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]
    times = [change for change in changes if change["kind"] == "time" and change["a"] and change["b"]]
    factors = [change["b"] / change["a"] for change in times]
    documents = zip(names, (a, b), strict=True)
    noisy = [name for name, each in documents if each.get("noise", {}).get("too_noisy_to_quote")]
    return {
        "schema": SCHEMA,
        "compared": a["schema"],
        "names": list(names),
        "changes": changes,
        "num_changed": sum(change["verdict"] not in (WITHIN_NOISE, EQUAL) for change in changes),
        "ratios": (ratio_changes := _ratio_changes(a, b)),
        "ratios_agree": all(change["agrees"] for change in ratio_changes) if ratio_changes else None,
        "time_factor": math.exp(sum(map(math.log, factors)) / len(factors)) if factors else None,
        "conditions": _condition_changes(a, b),
        "too_noisy_to_quote": noisy,
        "settings": {"drift_limit": NOISY_DRIFT, "memory_limit": MEMORY_MARGIN, "ratio_limit": RATIO_LIMIT},
        "machine": b["machine"],
        "not_measured": ["whether a difference comes from the machine, the versions or the settings"],
    }


def _change(name: str, a: float | StepTime | None, b: float | StepTime | None) -> dict[str, Any]:
    values = [each.median_ms if isinstance(each, StepTime) else each for each in (a, b)]
    entry: dict[str, Any] = {"name": name, "a": values[0], "b": values[1], "change": None}
    either = a if a is not None else b
    entry["kind"] = "time" if isinstance(either, StepTime) else "memory" if _is_memory(name) else "count"
    if a is None or b is None:
        return {**entry, "verdict": "only in the second" if a is None else "only in the first"}
    if isinstance(a, StepTime) != isinstance(b, StepTime):
        raise InputError(f"{name} is a time in one file and a number in the other: measure both again")
    before, after = (0.0 if value is None else value for value in values)
    if before:
        entry["change"] = after / before - 1
    if isinstance(a, StepTime) and isinstance(b, StepTime):
        return {**entry, "verdict": _time_verdict(a, b)}
    limit = MEMORY_MARGIN if entry["kind"] == "memory" else 0.0
    if abs(after - before) <= limit * abs(before):
        return {**entry, "verdict": EQUAL if after == before else WITHIN_NOISE}
    return {**entry, "verdict": "larger" if after > before else "smaller"}


def _ratio_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every ratio that both documents quote; one that only one of them has is told by its times."""
    before, after = flat_ratios(a), flat_ratios(b)
    changes = []
    for name, one, other in ((name, before[name], after[name]) for name in before if name in after):
        change = other / one - 1 if one else 0.0
        agrees = abs(change) <= RATIO_LIMIT
        changes.append({"name": name, "a": one, "b": other, "change": change, "agrees": agrees})
    return changes


def _time_verdict(a: StepTime, b: StepTime) -> str:
    change = b.median_ms / a.median_ms - 1
    margin = max(NOISY_DRIFT, abs(a.drift), abs(b.drift))
    apart = b.low_ms > a.high_ms or b.high_ms < a.low_ms
    if not apart or abs(change) <= margin:
        return WITHIN_NOISE
    return "slower" if change > 0 else "faster"


def _is_memory(name: str) -> bool:
    # Everything else that is measured: as little of a clockwork.
    return "memory" in name or "joules" in name or "contention" in name or name.endswith("slowdown")


def _condition_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    before, after = flat_conditions(a), flat_conditions(b)
    return [
        {"name": name, "a": before.get(name), "b": after.get(name)}
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]
