"""The report of ``gkt profile diff`` for a person."""

from __future__ import annotations

from typing import Any

from profiling.frame.sections import Document, Plot, Section

_UNCHANGED = ("equal", "within noise")


def title(document: Document) -> str:
    """Of the report."""
    return f"From {document['names'][0]} to {document['names'][1]}"


def sections(document: Document) -> list[Section]:
    """What differs in the conditions, what changed, and what did not."""
    found = [_conditions(document), _changed(document)]
    if document["ratios"]:
        found.append(_ratios(document))
    return [*found, _times(document)]


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


def _ratios(document: Document) -> Section:
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
    from matplotlib.figure import Figure  # noqa: PLC0415 - a device has none

    from profiling.frame.plot_style import BLUE, GRAY, ORANGE  # noqa: PLC0415

    times = [each for each in document["changes"] if each["kind"] == "time" and each["change"] is not None]
    figure = Figure(figsize=(8, 1.4 + 0.3 * len(times)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("Change of each median time")
    positions = range(len(times))[::-1]
    colors = {"slower": ORANGE, "faster": BLUE}
    axes.barh(
        positions,
        [100 * each["change"] for each in times],
        color=[colors.get(each["verdict"], GRAY) for each in times],
    )
    axes.set_yticks(positions, [each["name"] for each in times])
    axes.set_xlabel("percent; gray: within noise")
    axes.axvline(0, color=GRAY, linewidth=0.8)
    return figure


PLOTS = (Plot("Change of each median time", _draw),)
