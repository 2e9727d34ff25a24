"""The report of ``gkt profile simulation`` for a person."""

from __future__ import annotations

from typing import Any

from profiling.frame.sections import Document, Plot, Section, machine_section


def title(document: Document) -> str:
    """Of the report."""
    settings = document["settings"]
    return f"How fast simulations train, {settings['device']}, {settings['threads']} thread(s)"


def sections(document: Document) -> list[Section]:
    """Rates, and the ratios that are worth quoting."""
    return [_rates(document), _ratios(document), machine_section(document)]


def _rates(document: Document) -> Section:
    settings = document["settings"]
    return Section(
        title=f"Samples a second, batch {settings['batch_size']}, {settings['image_size']} px, "
        f"{settings['num_clients']} devices against one",
        headings=("", "median", "lowest", "highest", "n"),
        rows=[
            (
                _words(name),
                *(f"{found[key]:,.0f}" for key in ("samples_per_second", "lowest", "highest")),
                str(found["n"]),
            )
            for name, found in document["candidates"].items()
        ],
        notes=("All of them take turns in one run.",),
    )


def _ratios(document: Document) -> Section:
    return Section(
        title="Times, one over the other, within a turn",
        headings=("", "median", "lowest", "highest"),
        rows=[
            (_words(name), *(f"{found[key]:.3f}" for key in ("median", "lowest", "highest")))
            for name, found in document["ratios"].items()
        ],
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _draw(document: Document) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415 - a device has none

    from profiling.frame.plot_style import BLUE, GRAY, INK  # noqa: PLC0415

    ratios = document["ratios"]
    figure = Figure(figsize=(7.2, 1.4 + 0.4 * len(ratios)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("Simulation beside bare PyTorch loops")
    for position, found in zip(range(len(ratios))[::-1], ratios.values(), strict=True):
        axes.barh(position, found["median"], color=BLUE)
        axes.plot([found["lowest"], found["highest"]], [position, position], color=INK, linewidth=2)
    axes.axvline(1.0, color=GRAY, linewidth=0.8)
    axes.set_yticks(range(len(ratios))[::-1], [_words(name) for name in ratios])
    axes.set_xlabel("times as long: median, lowest and highest of all turns")
    return figure


PLOTS = (Plot("Simulation beside bare PyTorch loops", _draw),)
