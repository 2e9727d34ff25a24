"""``gkt profile chaos``: processes of a run are killed at random moments; nothing may be lost."""

from __future__ import annotations

from collections import Counter
from typing import Any

from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.plot_style import BLUE, GREEN, ORANGE, titled_axes
from profiling.frame.tables import table
from profiling.server.chaos.options import ChaosOptions


def _verdict(document: Document) -> Section:
    num_kills, seconds = len(document["kills"]), document["seconds"]
    config = document["settings"]["config"]
    killed = Counter(kill["victim"] for kill in document["kills"])
    verdict = "equal byte for byte" if document["equal"] else f"NOT EQUAL: {', '.join(document['differing'])}"
    return Section(
        title=f"{num_kills} SIGKILLs in {config['rounds']} rounds of {config['num_clients']} devices",
        headings=("process", "killed", "started"),
        rows=[
            # The trainer's own supervisor is the server.
            (name, str(killed[name]), str(document["starts"].get(name, "")))
            for name in dict.fromkeys(["server", "trainer", *document["starts"]])
        ],
        notes=(
            f"Checkpoints and models of server and devices are {verdict} to those of the run that was left "
            f"alone ({seconds['undisturbed']:.0f} s, with the kills {seconds['disturbed']:.0f} s).",
        ),
    )


def _kills(document: Document) -> Section:
    columns = {
        "kill": "{number}",
        "s": "{seconds:.1f}",
        "process": "{victim}",
        "pid": "{pid}",
        "run is": "{phase}",
        "round": "{round_num}",
        "epoch": "{epoch}",
    }
    kills = enumerate(document["kills"], start=1)
    return table(
        "Kills", columns, ({"number": num, **kill, "epoch": kill["epoch"] or ""} for num, kill in kills)
    )


def _hashes(document: Document) -> Section:
    disturbed = document["hashes"]["disturbed"]
    return Section(
        title="SHA-256 of what both runs left",
        headings=("file", "undisturbed", "disturbed", ""),
        rows=[
            (name, value[:16], disturbed[name][:16], "equal" if disturbed[name] == value else "DIFFERENT")
            for name, value in document["hashes"]["undisturbed"].items()
        ],
        notes=[
            f"Unfinished files stayed behind: {', '.join(left)}." for left in [document["leftovers"]] if left
        ],
    )


def _draw(document: Document) -> Any:
    figure, axes = titled_axes(7.2, 3.2, "Where in the run which process was killed")
    for name, color, marker in (("server", BLUE, "s"), ("trainer", ORANGE, "o"), ("a device", GREEN, "^")):
        of_it = [kill for kill in document["kills"] if name == kill["victim"]]
        if name == "a device":
            of_it = [kill for kill in document["kills"] if kill["victim"] not in ("server", "trainer")]
        places = [100 * kill["share_done"] for kill in of_it]
        axes.scatter([kill["seconds"] for kill in of_it], places, color=color, marker=marker, label=name)
    axes.set_xlabel("seconds since the run began")
    axes.set_ylabel("of the run done (%)")
    axes.legend(frameon=False)
    return figure


class Chaos(Measurement[ChaosOptions]):
    """Kill server, trainer and devices at random; nothing may be lost.

    Runs FedGKT on the digits twice, with real processes on loopback: once undisturbed, once with SIGKILL
    at random moments, starting again whatever was killed with the same command. Fails unless the server's
    last checkpoint, its model and every device's parameters are byte for byte those of the undisturbed run.
    """

    name = "chaos"
    options = ChaosOptions
    measured_by = "profiling.server.chaos.compare:measure_chaos"
    quick = ("--kills", "3", "--rounds", "2", "--server-epochs", "2", "--examples", "120")
    not_measured = (
        "a machine that loses power: what a killed process wrote, the system still has",
        "a network that fails: everything is on loopback",
        "asynchronous runs and deadlines, whose results depend on time",
    )
    tables = (_verdict, _kills, _hashes)
    plots = (Plot("Where in the run which process was killed", _draw),)

    def title(self, document: Document) -> str:
        """Say how often something was killed."""
        return f"A run that {len(document['kills'])} SIGKILLs disturb, beside one that is left alone"

    def failures(self, document: Document) -> list[str]:
        """Name the files that differ."""
        differing = document["differing"]
        return [f"the disturbed run left other bytes: {', '.join(differing)}"] if differing else []
