"""``gkt profile simulation``: how fast simulations train."""

from __future__ import annotations

from typing import Any

from profiling.experiments.speed.options import SpeedOptions
from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.tables import named, table


def _rates(document: Document) -> Section:
    settings = document["settings"]
    return table(
        f"Samples a second, batch {settings['batch_size']}, {settings['image_size']} px, "
        f"{settings['num_clients']} devices against one",
        {
            "": "{name:words}",
            "median": "{samples_per_second:,.0f}",
            "lowest": "{lowest:,.0f}",
            "highest": "{highest:,.0f}",
            "n": "{n}",
        },
        named(document["candidates"]),
        notes=("All of them take turns in one run.",),
    )


def _ratios(document: Document) -> Section:
    numbers = {name: f"{{{name}:.3f}}" for name in ("median", "lowest", "highest")}
    title = "Times, one over the other, within a turn"
    return table(title, {"": "{name:words}", **numbers}, named(document["ratios"]))


def _draw(document: Document) -> Any:
    bars = [
        Bar(name.replace("_", " "), ratio["median"], interval=(ratio["lowest"], ratio["highest"]))
        for name, ratio in document["ratios"].items()
    ]
    unit = "times as long: median, lowest and highest of all turns"
    return bar_figure("Simulation beside bare PyTorch loops", unit, bars, marked=1.0)


class Speed(Measurement[SpeedOptions]):
    """Measure how fast gkt simulate trains.

    The clients' phase of many devices beside one device with all samples, and the devices' and the
    server's training beside bare PyTorch loops of the same networks, interleaved. Three to five minutes.
    """

    name = "simulation"
    options = SpeedOptions
    measured_by = "profiling.experiments.speed.measure:measure_speed"
    quick = ("--examples", "64", "--server-examples", "64", "--clients", "4", "--repeats", "2")
    not_measured = (
        "reading data, evaluation and checkpoints of a simulation",
        "other networks than ResNet-8 and ResNet-55",
        "any machine but this one",
    )
    heading = "How fast simulations train, {settings[device]}, {settings[threads]} thread(s)"
    tables = (_ratios, _rates)
    plots = (Plot("Simulation beside bare PyTorch loops", _draw),)
