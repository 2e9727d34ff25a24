"""A document as flat values by name: numbers, and times with what is known about their noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from profiling.frame.measuring.step_time import StepTime

# Objects in lists go by what they are called, never by their position.
_NAMES = ("name", "method", "kind", "what", "round_num")
# What follows from other values, or describes the measurement rather than what was measured.
_LEFT_OUT = (
    "schema",
    "ratios",
    "noise",
    "not_measured",
    "settings",
    "machine",
    "conditions",
    "windows",
    "images_per_second",
    "unexplained_bytes",
)


def flat_values(document: Mapping[str, Any]) -> dict[str, float | StepTime]:
    """All numbers and times of a document, by readable names such as ``networks resnet8 step_ms pytorch``."""
    return dict(_walk(document, ""))


def _walk(value: Any, name: str) -> Iterator[tuple[str, float | StepTime]]:
    if isinstance(value, Mapping):
        if "median_ms" in value and "low_ms" in value:
            yield name, StepTime(**value)
            return
        for key, each in value.items():
            if key not in _LEFT_OUT:
                yield from _walk(each, f"{name} {key}".strip())
    elif isinstance(value, list):
        for position, each in enumerate(value):
            yield from _walk(each, f"{name} {_label(each, position)}".strip())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def _label(value: Any, position: int) -> str:
    if not isinstance(value, Mapping):
        return str(position)
    parts = [str(value[key]) for key in _NAMES if key in value]
    # Totals of a run are told apart by method and network.
    if "method" in value and "network" in value:
        parts.append(str(value["network"]))
    return " ".join(parts) or str(position)


def flat_ratios(document: Mapping[str, Any]) -> dict[str, float]:
    """The ratios of a document by name, without what others report beside them."""
    ratios: dict[str, float] = {}

    def walk(value: Any, name: str) -> None:
        if not isinstance(value, Mapping):
            return
        for key in ("value", "median"):
            if isinstance(value.get(key), int | float):
                ratios[name] = float(value[key])
                return
        for key, each in value.items():
            walk(each, f"{name} {key}".strip())

    walk(document.get("ratios"), "")
    return ratios


def flat_conditions(document: Mapping[str, Any]) -> dict[str, str]:
    """Settings and machine as texts, to show what differs between two measurements."""
    conditions: dict[str, str] = {}
    for part in ("settings", "machine"):
        for key, value in document[part].items():
            if isinstance(value, Mapping):
                conditions |= {f"{part} {key} {inner}": str(each) for inner, each in value.items()}
            else:
                conditions[f"{part} {key}"] = str(value)
    return conditions
