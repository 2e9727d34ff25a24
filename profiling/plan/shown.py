"""The report of ``gkt plan`` for a person."""

from __future__ import annotations

from typing import Any

from profiling.frame.sections import Document, Plot, Section, machine_section
from profiling.frame.units import format_bytes


def title(document: Document) -> str:
    """Of the report."""
    fleet = document["fleet"]
    return f"A plan for {fleet['devices']:,} devices with {fleet['samples']:,} samples each"


def sections(document: Document) -> list[Section]:
    """Constants with their sources, results with their formulas, and the check against a real run."""
    found = [_results(document), _constants(document)]
    if document["validation"] is not None:
        found.append(_validation(document["validation"]))
    return [*found, machine_section(document)]


def _results(document: Document) -> Section:
    fleet = document["fleet"]
    return Section(
        title=f"{fleet['rounds']} rounds, {fleet['uploads']} uploads, {fleet['codec']}, "
        f"{fleet['uplink_mbps']:g} Mbit/s up, {fleet['downlink_mbps']:g} down",
        headings=("", "value", "formula"),
        rows=[
            (each["name"], _value(each["name"], each["value"]), each["formula"])
            for each in document["results"]
        ],
        notes=("A paper plan: it knows no stragglers and no lost devices, and says nothing of accuracy.",),
    )


def _constants(document: Document) -> Section:
    return Section(
        title="Constants, each measured or given",
        headings=("", "value", "source"),
        rows=[
            (each["name"].replace("_", " "), f"{each['value']:,.4g}", each["source"])
            for each in document["constants"]
        ],
    )


def _validation(validation: dict[str, Any]) -> Section:
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
    return format_bytes(value) if "bytes" in name else f"{value:,.4g}"


def _draw(document: Document) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415 - a device has none

    from profiling.frame.plot_style import BLUE, ORANGE  # noqa: PLC0415

    results = {each["name"]: each["value"] or 0.0 for each in document["results"]}
    parts = (
        "device compute, s a round",
        "device upload, s a round",
        "device download, s a round",
        "server part, s a round",
    )
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("Where a round's time goes")
    positions = range(len(parts))[::-1]
    colors = [BLUE, BLUE, BLUE, ORANGE]
    axes.barh(positions, [results[part] for part in parts], color=colors)
    axes.set_yticks(positions, [part.removesuffix(", s a round") for part in parts])
    axes.set_xlabel("seconds a round")
    return figure


PLOTS = (Plot("Where a round's time goes", _draw),)
