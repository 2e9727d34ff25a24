"""``gkt profile waiting``: what devices that wait cost, and how soon they hear of their turn."""

from __future__ import annotations

from profiling.frame import Document, Measurement, Section
from profiling.server.waiting.options import WaitingOptions

# Shares of a core, and seconds.
MOST_OF_SERVER, MOST_OF_DEVICE, MOST_SECONDS = 0.02, 0.002, 2.0
MOST_OF_WATCHING, MOST_ANSWER_SECONDS = 0.02, 0.003


def _costs(document: Document) -> Section:
    settings, heard, answers = document["settings"], document["heard_seconds"], document["answer_seconds"]
    return Section(
        title=f"{settings['num_devices']} devices wait for {settings['seconds']:g} s",
        headings=("", "measured", "at most"),
        rows=[
            ("the server, of a core", f"{document['server_share']:.2%}", f"{MOST_OF_SERVER:.0%}"),
            ("a device, of a core", f"{document['device_share']:.2%}", f"{MOST_OF_DEVICE:.1%}"),
            (
                f"the server more, with {settings['num_pages']} pages, gkt status and Prometheus",
                f"{document['watched_share']:.2%}",
                f"{MOST_OF_WATCHING:.0%}",
            ),
            (
                "a small request on a kept connection",
                f"{answers['median'] * 1e3:.2f} ms",
                f"{MOST_ANSWER_SECONDS * 1e3:g} ms",
            ),
            ("19 of 20 of them", f"{answers['p95'] * 1e3:.2f} ms", ""),
            ("the last one hears of its turn after", f"{heard['last']:.2f} s", f"{MOST_SECONDS:g} s"),
            ("half of them have heard after", f"{heard['median']:.2f} s", ""),
        ],
        notes=(
            f"{document['num_requests']} questions, {document['num_looks']} looks; CPU time of "
            "processes, the kernel's included.",
        ),
    )


class Waiting(Measurement[WaitingOptions]):
    """Let devices wait at one gkt serve, and then have their turn.

    One device is a gkt edge run, the others ask as it does and train nothing. Fails where a waiting device
    takes more than 0.2 % of a core, the server more than 2 %, or 2 % more when it is watched, where a small
    request takes more than 3 ms, or a turn is heard of later than after two seconds. About eight minutes.
    """

    name = "waiting"
    options = WaitingOptions
    measured_by = "profiling.server.waiting.measure:measure_waiting"
    quick = ("--devices", "4", "--seconds", "2", "--pages", "2")
    not_measured = (
        "https: these devices wait on plain http",
        "a network: everything is on loopback",
    )
    heading = "{settings[num_devices]} devices that wait"
    tables = (_costs,)

    def failures(self, document: Document) -> list[str]:
        """Name what is dearer or later than it may be."""
        server, device = document["server_share"], document["device_share"]
        last, said = document["heard_seconds"]["last"], []
        if server > MOST_OF_SERVER:
            said.append(f"the server takes {server:.2%} of a core, more than {MOST_OF_SERVER:.0%}")
        if device > MOST_OF_DEVICE:
            said.append(f"a device takes {device:.2%} of a core, more than {MOST_OF_DEVICE:.1%}")
        if (more := document["watched_share"]) > MOST_OF_WATCHING:
            said.append(f"to be watched takes {more:.2%} of a core, more than {MOST_OF_WATCHING:.0%}")
        if (answer := document["answer_seconds"]["median"]) > MOST_ANSWER_SECONDS:
            said.append(f"a small request takes {answer * 1e3:.1f} ms, not {MOST_ANSWER_SECONDS * 1e3:g} ms")
        if last > MOST_SECONDS:
            said.append(f"the last device heard of its turn after {last:.1f} s, not {MOST_SECONDS:g} s")
        return said
