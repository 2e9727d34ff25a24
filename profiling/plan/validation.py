"""A plan of a run that really took place, beside what was measured in it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profiling.plan.calibration import fleet_of
from profiling.plan.constants import Constant, later_rounds, read_report
from profiling.plan.formulas import plan_fleet

# The promise: predicted and measured within a quarter.
TOLERANCE = 0.25


def validate(
    demo_dir: Path, constants: Mapping[str, Constant], image_size: int, num_cores: int
) -> dict[str, Any]:
    """Predict an earlier ``gkt demo`` on this machine and compare.

    Args:
        demo_dir: Its folder.
        constants: Measured elsewhere: by ``gkt profile edge`` and in another run.
        image_size: Pixels that the constants were measured with.
        num_cores: Cores that its devices shared.

    Returns:
        ``rows`` (``name``, ``predicted``, ``measured``, ``relative_error``), ``tolerance``, ``holds``.

    Raises:
        InputError: The folder holds no finished demo.
    """
    report = read_report(demo_dir, image_size)
    config, fleet = report["config"], fleet_of(report, num_cores)
    if not config["compress"]:
        constants = {**constants, "compression_ratio": Constant(1.0, "the run does not compress")}
    plan = {result.name: result.value for result in plan_fleet(fleet, constants)}
    rounds = later_rounds(report)
    pairs = (
        ("device part, s a round", "edge_seconds"),
        ("server part, s a round", "server_seconds"),
        ("round, s", "seconds"),
    )
    rows = [
        _row(name, plan[name], statistics.median(each[column] for each in rounds)) for name, column in pairs
    ]
    traffic = report["traffic"]
    rows.append(_row("bytes in, all", plan["bytes in, all"], traffic["upload/shards"]))
    if config["direction"] != "none":
        rows.append(_row("bytes out, all", plan["bytes out, all"], traffic.get("download/soft_labels", 0)))
    return {
        "demo_dir": demo_dir.name,
        "rows": rows,
        "tolerance": TOLERANCE,
        "holds": all(abs(row["relative_error"]) <= TOLERANCE for row in rows),
    }


def _row(name: str, predicted: float | None, measured: float) -> dict[str, Any]:
    value = predicted or 0.0
    return {
        "name": name,
        "predicted": value,
        "measured": measured,
        "relative_error": value / measured - 1 if measured else 0.0,
    }
