"""``gkt profile load``: many devices at one server at once, and the memory of its processes."""

from __future__ import annotations

from typing import Any

from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.plot_style import BLUE, ORANGE, titled_axes
from profiling.frame.units import format_bytes
from profiling.server.load.options import LoadOptions


def _memory(document: Document) -> Section:
    devices, seconds, settings = document["devices"], document["seconds"], document["settings"]
    grown = f"GROWS: {', '.join(document['grows'])}" if document["grows"] else "does not grow with the rounds"
    return Section(
        title=f"Memory of the server's processes (PSS), {settings['num_devices']} devices at once",
        headings=("process", "before", "peak", "after", "growth a round"),
        rows=[
            (
                name,
                format_bytes(memory["before"]["pss_bytes"]),
                format_bytes(memory["during"]["peak_pss_bytes"]),
                "ended" if memory["after"] is None else format_bytes(memory["after"]["pss_bytes"]),
                format_bytes(memory["growth_bytes_per_round"]),
            )
            for name, memory in document["memory"].items()
        ],
        notes=(
            f"{settings['rounds']} rounds in {seconds['all']:.0f} s: {devices['num_requests']:,} requests, "
            f"{devices['num_retries']} of them repeated, the longest took "
            f"{devices['longest_request_seconds']:.1f} s. Memory {grown}.",
        ),
    )


def _rounds(document: Document) -> Section:
    memory = document["memory"]
    return Section(
        title="Each round, with the most memory in it",
        headings=("round", "s", *memory),
        rows=[
            (
                str(place + 1),
                f"{seconds:.1f}",
                *(format_bytes(each["rounds"][place]["peak_pss_bytes"]) for each in memory.values()),
            )
            for place, seconds in enumerate(document["seconds"]["rounds"])
        ],
    )


def _draw(document: Document) -> Any:
    title = f"Memory with {document['settings']['num_devices']} devices at once"
    figure, axes = titled_axes(7.2, 3.2, title)
    for (name, memory), color in zip(document["memory"].items(), (BLUE, ORANGE), strict=False):
        peaks = [each["peak_pss_bytes"] / 1e6 for each in memory["rounds"]]
        axes.plot(range(1, len(peaks) + 1), peaks, marker="o", color=color, label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("round")
    axes.set_ylabel("most memory in it (PSS, MB)")
    axes.legend(frameon=False)
    return figure


class Load(Measurement[LoadOptions]):
    """Hold one gkt serve against many devices at once, and watch its memory.

    The devices speak the whole protocol over sockets of their own, and train nothing. Fails if web or
    trainer process grow with the number of rounds. About three minutes.
    """

    name = "load"
    options = LoadOptions
    measured_by = "profiling.server.load.measure:measure_load"
    quick = ("--devices", "6", "--rounds", "4", "--poll-seconds", "0.1")
    not_measured = (
        "the devices' own training: they are threads of one process, whose shards are random numbers",
        "a network: everything is on loopback",
    )
    heading = "A server with {settings[num_devices]} devices at once"
    tables = (_memory, _rounds)
    plots = (Plot("Memory of the server's processes, round by round", _draw),)

    def failures(self, document: Document) -> list[str]:
        """Name the processes that grow."""
        grows = document["grows"]
        return [f"memory grows with the rounds: {', '.join(grows)}"] if grows else []
