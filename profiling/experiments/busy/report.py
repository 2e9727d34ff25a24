"""``gkt profile busy``: a training alone, and beside a core that something else wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from profiling.experiments.busy.options import CHOSEN, BusyOptions
from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.tables import named, table

# What may be lost alone, and how many times slower a busy core may make a training.
LEAST_SHARE_ALONE, MOST_TIMES_SLOWER = 0.9, 2.5


def _ways(document: Document) -> Section:
    settings = document["settings"]
    return table(
        f"Samples a second of the trainer's step, batch {settings['batch_size']}, "
        f"{settings['image_size']} px, median of n turns",
        {
            "threads wait": "{name:words}",
            "threads": "{num_threads}",
            "alone": "{samples_per_second[median]:,.1f}",
            "beside a busy core": "{samples_per_second_beside_a_busy_core[median]:,.1f}",
            "times slower": "{times_slower[median]:.2f}",
            "lowest": "{times_slower[lowest]:.2f}",
            "highest": "{times_slower[highest]:.2f}",
            "alone, over as OpenMP comes": "{share_of_as_openmp_comes[median]:.2f}",
            "n": "{times_slower[n]}",
        },
        named(document["ways"]),
    )


def _demo(document: Document) -> Section | None:
    demo = document["demo"]
    if demo is None:
        return None
    numbers = {"median": "{median:,.2f}", "lowest": "{lowest:,.2f}", "highest": "{highest:,.2f}", "n": "{n}"}
    return table(
        f"gkt demo --rounds {demo['rounds']}: seconds from the server's start to the devices' end",
        {"": "{name:words}", **numbers},
        named({**demo["training_seconds"], "times_slower": demo["times_slower"]}),
    )


def _draw(document: Document) -> Any:
    bars = [
        Bar(
            name.replace("_", " "),
            way["times_slower"]["median"],
            interval=(way["times_slower"]["lowest"], way["times_slower"]["highest"]),
        )
        for name, way in document["ways"].items()
    ]
    unit = "times slower beside a busy core: median, lowest and highest of all turns"
    return bar_figure("A training beside a busy core", unit, bars, marked=1.0)


class Busy(Measurement[BusyOptions]):
    """Measure a training beside a core that something else keeps busy, and alone.

    The server's network is trained with each way in which OpenMP's threads can wait for each other, in turns
    and in processes of their own; then a short gkt demo, alone and beside a busy core. About fifteen minutes,
    on a machine that does nothing else. Ends with exit code 7 where gkt's own way loses more than a tenth
    alone, or is more than 2.5 times slower beside a busy core.
    """

    name = "busy"
    options = BusyOptions
    measured_by = "profiling.experiments.busy.measure:measure_busy"
    quick = ("--repeats", "1", "--seconds", "0.5", "--image-size", "8", "--batch-size", "8", "--demos", "0")
    not_measured = ("more than one busy core", "a GPU", "OpenMP libraries other than this machine's")
    heading = "A training beside a busy core, batch {settings[batch_size]}, {settings[image_size]} px"
    tables = (_ways, _demo)
    plots = (Plot("A training beside a busy core", _draw),)

    def failures(self, document: Document) -> Sequence[str]:
        """Say what gkt's own way loses, where it is too much."""
        own, said = document["ways"][CHOSEN], []
        share, slower = own["share_of_as_openmp_comes"]["median"], own["times_slower"]["median"]
        if share < LEAST_SHARE_ALONE:
            said.append(f"alone, the trainer has {share:.2f} of its speed as OpenMP comes")
        if slower > MOST_TIMES_SLOWER:
            said.append(f"beside a busy core the trainer is {slower:.1f} times slower")
        if document["demo"] and document["demo"]["times_slower"]["median"] > MOST_TIMES_SLOWER:
            said.append(
                f"beside a busy core a demo is {document['demo']['times_slower']['median']:.1f} times slower"
            )
        return said

    def readme(self, document: Document) -> Sequence[Section]:
        """Show both."""
        return self.sections(document)
