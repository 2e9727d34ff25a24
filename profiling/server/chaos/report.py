"""``gkt profile chaos``: a run is disturbed at random; nothing may be lost, or what is lost has a name."""

from __future__ import annotations

from collections import Counter
from typing import Any

from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.plot_style import BLUE, GREEN, ORANGE, titled_axes
from profiling.frame.tables import table
from profiling.server.chaos.options import ChaosOptions

_KINDS = {
    "kill": "killed (SIGKILL)",
    "stop": "stopped for 1 to 6 s (SIGSTOP)",
    "damage": "a bit changed, or cut short",
    "remove": "removed",
    "fill": "filled to the last byte for 1 to 6 s",
    "clock": "moved by up to two days",
}


def _verdict(document: Document) -> Section:
    num, seconds = len(document["strikes"]), document["seconds"]
    config = document["settings"]["config"]
    struck = Counter((strike["kind"], strike["victim"]) for strike in document["strikes"])
    verdict = "equal byte for byte" if document["equal"] else f"NOT EQUAL: {', '.join(document['differing'])}"
    return Section(
        title=f"{num} strikes in {config['rounds']} rounds of {config['num_clients']} devices",
        headings=("what", "was", "times"),
        rows=[
            (victim, _KINDS[kind], str(struck[kind, victim]))
            for kind in _KINDS
            for victim in sorted({victim for each, victim in struck if each == kind})
        ],
        notes=(
            f"Over https, with quarantine and a deadline. Checkpoints and models of server and devices are "
            f"{verdict} to those of the run that was left alone ({seconds['undisturbed']:.0f} s, with the "
            f"strikes {seconds['disturbed']:.0f} s).",
        ),
    )


def _losses(document: Document) -> Section:
    columns = {"lost": "{lost}", "what the run says": "{named}", "it was then": "{state}"}
    return table(
        "What cannot be restored, in another run, which ends all the same", columns, document["losses"]
    )


def _strikes(document: Document) -> Section:
    columns = {
        "strike": "{number}",
        "s": "{seconds:.1f}",
        "kind": "{kind}",
        "what": "{victim}",
        "run is": "{phase}",
        "round": "{round_num}",
        "epoch": "{epoch}",
    }
    strikes = enumerate(document["strikes"], start=1)
    return table(
        "Strikes",
        columns,
        ({"number": num, **strike, "epoch": strike["epoch"] or ""} for num, strike in strikes),
    )


def _hashes(document: Document) -> Section:
    disturbed = document["hashes"]["disturbed"]
    starts = ", ".join(f"{name} {num}" for name, num in document["starts"].items())
    return Section(
        title="SHA-256 of what both runs left",
        headings=("file", "undisturbed", "disturbed", ""),
        rows=[
            (name, value[:16], disturbed[name][:16], "equal" if disturbed[name] == value else "DIFFERENT")
            for name, value in document["hashes"]["undisturbed"].items()
        ],
        notes=[
            f"Times started: {starts}; {document['restarts_for_disk']} of them after exit code 8: "
            "the disk was full.",
            *[
                f"Unfinished files stayed behind: {', '.join(left)}."
                for left in [document["leftovers"]]
                if left
            ],
        ],
    )


def _draw(document: Document) -> Any:
    figure, axes = titled_axes(7.2, 3.2, "Where in the run what befell it")
    colors = {
        "server": (BLUE, "s"),
        "trainer": (ORANGE, "o"),
        "a device": (GREEN, "^"),
        "files": ("gray", "x"),
    }
    for name, (color, marker) in colors.items():
        of_it = [strike for strike in document["strikes"] if name == _group(strike)]
        places = [100 * strike["share_done"] for strike in of_it]
        axes.scatter([strike["seconds"] for strike in of_it], places, color=color, marker=marker, label=name)
    axes.set_xlabel("seconds since the run began")
    axes.set_ylabel("of the run done (%)")
    axes.legend(frameon=False)
    return figure


def _group(strike: dict[str, Any]) -> str:
    if strike["kind"] not in ("kill", "stop"):
        return "files"
    return strike["victim"] if strike["victim"] in ("server", "trainer") else "a device"


class Chaos(Measurement[ChaosOptions]):
    """Kill, stop, damage, fill and move at random; nothing may be lost.

    Runs FedGKT on the digits three times, with real processes on this machine, https, quarantine and a
    deadline: undisturbed; disturbed at random moments by SIGKILL and SIGSTOP of server, trainer and devices,
    damaged and removed shards and checkpoints, a full disk (as root) and a clock that moves; and robbed of
    soft labels and checkpoints that nothing can restore. Whatever was killed is started again with the same
    command. Fails unless the disturbed run leaves the bytes of the undisturbed one, and the robbed one names
    each loss and comes to its end all the same.
    """

    name = "chaos"
    options = ChaosOptions
    measured_by = "profiling.server.chaos.compare:measure_chaos"
    quick = ("--strikes", "11", "--rounds", "5", "--server-epochs", "2", "--examples", "120")
    not_measured = (
        "a machine that loses power: what a killed process wrote, the system still has",
        "clocks of libraries in C, such as those that look at certificates",
    )
    tables = (_verdict, _losses, _strikes, _hashes)
    plots = (Plot("Where in the run what befell it", _draw),)

    def title(self, document: Document) -> str:
        """Say how often something happened."""
        return f"A run that {len(document['strikes'])} strikes disturb, beside one that is left alone"

    def readme(self, document: Document) -> list[Section]:
        """What happened, and what was lost."""
        return [_verdict(document), _losses(document)]

    def failures(self, document: Document) -> list[str]:
        """Name the files that differ, and devices that were left out."""
        differing, out = document["differing"], document["quarantined"]
        said = [f"the disturbed run left other bytes: {', '.join(differing)}"] if differing else []
        return [*said, *(f"{client_id} was quarantined, which is honest" for client_id in out)]
