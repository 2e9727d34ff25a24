"""``gkt profile peers``: silent, trickling and unreading peers beside an honest device."""

from __future__ import annotations

from typing import Any

from profiling.frame import Document, Measurement, Section
from profiling.frame.tables import table
from profiling.server.peers.options import PeersOptions

# What an honest device's request may take at most, whoever else is there.
MOST_SECONDS = 2.0


def _row(crowd: dict[str, Any]) -> dict[str, Any]:
    return {
        **crowd,
        "over": "https" if crowd["tls"] else "http",
        "known": "a device's" if crowd["credential"] else "none",
    }


def _crowds(document: Document) -> Section:
    columns = {
        "peers": "{peers}",
        "over": "{over}",
        "they are": "{manner}",
        "secret": "{known}",
        "longest request": "{longest_request_seconds:.2f} s",
        "median": "{median_request_seconds:.3f} s",
        "round": "{round_seconds:.1f} s",
        "threads": "{threads}",
        "descriptors": "{descriptors}",
    }
    num = document["settings"]["num_requests"]
    section = table(
        "An honest device beside peers that say nothing, or a byte a second, or read nothing",
        columns,
        map(_row, document["crowds"]),
    )
    note = (
        f"{num} times beside each crowd a device comes over a new connection and asks for the run and its "
        "task; then a whole round. Whoever is sent away comes again at once. These are bounds, not timings: "
        "a machine that is busy makes them larger."
    )
    return Section(section.title, section.headings, section.rows, notes=(note,))


class Peers(Measurement[PeersOptions]):
    """Let peers that say nothing, or next to nothing, or read nothing, crowd a server.

    Crowds of 64, 512 and 2,000 over http and https, silent, trickling and unreading, without a secret (no
    handshake, a head that never ends, a file of the page that is not read) and with a device's (a body that
    never comes, a file of the bundle that is not read), all on this machine. Fails unless
    each request of an honest device beside them is answered within two seconds and its rounds are trained.
    """

    name = "peers"
    options = PeersOptions
    measured_by = "profiling.server.peers.measure:measure_peers"
    quick = ("--most", "64", "--requests", "5")
    not_measured = ("a network: everything is on loopback", "a proxy in front", "a flood of whole requests")
    heading = "A server beside {settings[most]:,} silent or trickling peers"
    tables = (_crowds,)

    def failures(self, document: Document) -> list[str]:
        """Name crowds beside which an honest device waited too long."""
        return [
            f"{row['peers']} {row['manner']} peers, {row['over']}, secret: {row['known']}: a request took "
            f"{row['longest_request_seconds']:.1f} s, at most {MOST_SECONDS:g} s are allowed"
            for row in map(_row, document["crowds"])
            if row["longest_request_seconds"] >= MOST_SECONDS
        ]
