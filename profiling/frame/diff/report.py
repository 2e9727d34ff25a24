"""What ``gkt profile diff`` shows."""

from __future__ import annotations

from typing import Any

from profiling.frame.bars import Bar, bar_figure
from profiling.frame.measurement import Report
from profiling.frame.plot_style import BLUE, GRAY, ORANGE
from profiling.frame.sections import Document, Plot, Section

_UNCHANGED = ("equal", "within noise")


def _conditions(document: Document) -> Section:
    rows = [(each["name"], each["a"] or "", each["b"] or "") for each in document["conditions"]]
    return Section(
        title="Measured under other conditions" if rows else "Measured under the same conditions",
        headings=("", *document["names"]),
        rows=rows,
        notes=("Other conditions explain other times before any version does.",) if rows else (),
    )


def _changed(document: Document) -> Section:
    rows = [_row(change) for change in document["changes"] if change["verdict"] not in _UNCHANGED]
    factor = document["time_factor"]
    notes = [
        f"{len(document['changes']) - document['num_changed']} of {len(document['changes'])} values are "
        "equal or within noise.",
    ]
    if factor is not None:
        notes.append(f"All times together: {factor:.3f} times as long (geometric mean).")
    for name in document["too_noisy_to_quote"]:
        notes.append(f"{name} says of itself that it is too noisy to quote: measure it again first.")
    return Section(
        title="What changed beyond noise" if rows else "Nothing changed beyond noise",
        headings=("", *document["names"], "change", "verdict"),
        rows=rows,
        notes=notes,
    )


def _ratios(document: Document) -> Section | None:
    if not document["ratios"]:
        return None
    agree = "agree" if document["ratios_agree"] else "DO NOT AGREE"
    return Section(
        title=f"The ratios {agree} within {document['settings']['ratio_limit']:.0%}",
        headings=("", *document["names"], "change", ""),
        rows=[
            (
                each["name"].replace("_", " "),
                f"{each['a']:.4g}",
                f"{each['b']:.4g}",
                f"{each['change']:+.1%}",
                "agrees" if each["agrees"] else "DIFFERS",
            )
            for each in document["ratios"]
        ],
    )


def _times(document: Document) -> Section:
    return Section(
        title="All times (median, ms)",
        headings=("", *document["names"], "change", "verdict"),
        rows=[_row(change) for change in document["changes"] if change["kind"] == "time"],
        notes=(
            "A time changed if the confidence intervals of both medians are apart and the medians differ by "
            f"more than {document['settings']['drift_limit']:.0%} and by more than either run drifted.",
        ),
    )


def _row(change: dict[str, Any]) -> tuple[str, ...]:
    return (
        change["name"],
        _number(change["a"]),
        _number(change["b"]),
        "" if change["change"] is None else f"{change['change']:+.1%}",
        change["verdict"],
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:,.3g}"


def _draw(document: Document) -> Any:
    colors = {"slower": ORANGE, "faster": BLUE}
    bars = [
        Bar(each["name"], 100 * each["change"], colors.get(each["verdict"], GRAY))
        for each in document["changes"]
        if each["kind"] == "time" and each["change"] is not None
    ]
    return bar_figure("Change of each median time", "percent; gray: within noise", bars, marked=0.0)


class Diff(Report):
    """What changed between two documents of one kind."""

    name = "profile-diff"
    plots = (Plot("Change of each median time", _draw),)
    # Of two machines there is none to end with; what differs comes first.
    shows_machine = False
    heading = "From {names[0]} to {names[1]}"
    tables = (_conditions, _changed, _ratios, _times)
