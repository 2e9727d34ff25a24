"""``gkt plan``: a deployment on paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.command import measurement_command
from profiling.frame.plot_style import BLUE, ORANGE
from profiling.frame.tables import table
from profiling.frame.units import format_bytes, format_duration
from profiling.plan.options import PlanOptions

# By the last word of a result's name.
_SECONDS = {"hours": 3600.0}


def _results(document: Document) -> Section:
    fleet = document["fleet"]
    return table(
        f"{fleet['rounds']} rounds, {fleet['uploads']} uploads, {fleet['codec']}, "
        f"{fleet['uplink_mbps']:g} Mbit/s up, {fleet['downlink_mbps']:g} down",
        {"": "{name}", "value": "{shown}", "formula": "{formula}"},
        ({**each, "shown": _value(each["name"], each["value"])} for each in document["results"]),
        notes=("A paper plan: it knows no stragglers and no lost devices, and says nothing of accuracy.",),
    )


def _constants(document: Document) -> Section:
    columns = {"": "{name:words}", "value": "{value:,.4g}", "source": "{source}"}
    return table("Constants, each measured or given", columns, document["constants"])


def _validation(document: Document) -> Section | None:
    if (validation := document["validation"]) is None:
        return None
    verdict = "holds" if validation["holds"] else "DOES NOT HOLD"
    return Section(
        title=f"Against the real run {validation['demo_dir']}",
        headings=("", "predicted", "measured", "error"),
        rows=[
            (
                row["name"],
                _value(row["name"], row["predicted"]),
                _value(row["name"], row["measured"]),
                f"{row['relative_error']:+.1%}",
            )
            for row in validation["rows"]
        ],
        notes=(
            f"The promise of {validation['tolerance']:.0%} {verdict}. Rounds without the first, which holds "
            "the start of the trainer.",
        ),
    )


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "not computed"
    if "bytes" in name:
        return format_bytes(value)
    number = f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
    seconds = value * _SECONDS.get(name.rpartition(" ")[2], 1.0 if ", s" in name else 0.0)
    return f"{number} ({format_duration(seconds)})" if seconds >= 120 else number


def _draw(document: Document) -> Any:
    results = {each["name"]: each["value"] or 0.0 for each in document["results"]}
    parts = ("device compute", "device upload", "device download", "server part")
    bars = [
        Bar(part, results[f"{part}, s a round"], ORANGE if part == "server part" else BLUE) for part in parts
    ]
    return bar_figure("Where a round's time goes", "seconds a round", bars)


class Plan(Measurement[PlanOptions]):
    """Plan a deployment larger than this machine: time, bytes, servers, GPU hours, cost.

    Every constant is measured (--edge, --run) or given, and every formula is printed. What a missing constant
    would be needed for is not computed.

    \b
    gkt profile edge --artifacts artifacts --out edge.json
    gkt demo --out calibration
    gkt plan --devices 1e6 --samples 200 --uplink-mbps 5 --edge edge.json --run calibration
    """  # noqa: D301 - click looks for the character itself

    name = "plan"
    options = PlanOptions
    measured_by = "profiling.plan.measure:make_plan"
    example = "gkt plan --devices 1e6 --samples 200 --edge edge.json --run calibration"
    not_measured = ("stragglers, lost devices, accuracy",)
    heading = "A plan for {fleet[devices]:,} devices with {fleet[samples]:,} samples each"
    tables = (_results, _constants, _validation)
    plots = (Plot("Where a round's time goes", _draw),)

    @property
    def schema(self) -> str:
        """Name the kind of a document of a command that is not below ``gkt profile``."""
        return "gkt-plan/1"

    def readme(self, document: Document) -> Sequence[Section]:
        """Choose the check against a real run, where there was one."""
        return self.sections(document)[2:] or self.sections(document)[:1]


plan = measurement_command(Plan())
