"""``gkt profile ingest`` and ``gkt profile web``: what receiving bodies costs, beside other servers."""

from __future__ import annotations

from typing import Any

from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.plot_style import BLUE, GRAY
from profiling.frame.units import format_bytes
from profiling.server.web.options import IngestOptions, WebOptions

_CANDIDATES = {
    "ours": "gkt serve",
    "nginx": "nginx, which only stores them",
    "ceiling": "SHA-256, a look at every value and a file in plain Python",
}


def _bars(title: str, rates: dict[str, tuple[float, float, float]]) -> Any:
    """Draw bytes a CPU-second: median, lowest and highest by name, ours first."""
    bars = [
        Bar(name, median / 1e6, GRAY if place else BLUE, (lowest / 1e6, highest / 1e6))
        for place, (name, (median, lowest, highest)) in enumerate(rates.items())
    ]
    return bar_figure(title, "MB a CPU-second: median, lowest and highest of all turns", bars)


def _draw_ingest(document: Document) -> Any:
    rates = {name: (document[name], *document["spread"][name]) for name in _CANDIDATES}
    return _bars("Receiving 4 MiB shards", rates)


def _ingest(document: Document) -> Section:
    rows = [
        (words, *(format_bytes(value) for value in (document[name], *document["spread"][name])))
        for name, words in _CANDIDATES.items()
    ]
    return Section(
        title="Body bytes a CPU-second, 4 MiB shards",
        headings=("", "median", "lowest", "highest"),
        rows=rows,
        notes=(
            f"gkt serve receives {document['ratio']:.2f} of what nginx does, and "
            f"{document['ratio_to_ceiling']:.2f} of the ceiling in plain Python.",
        ),
    )


class Ingest(Measurement[IngestOptions]):
    """Measure what receiving features costs the server, beside nginx and a ceiling.

    Body bytes a CPU-second of the serving processes, kernel time included, for fp32 features in shards of
    4 MiB on the loopback interface, interleaved. Needs Debian's package nginx.
    """

    name = "ingest"
    options = IngestOptions
    measured_by = "profiling.server.web.ingest:measure_ingest"
    programs = ("nginx",)
    quick = ("--turns", "1", "--bodies", "2")
    not_measured = (
        "TLS",
        "a network: everything is on loopback",
        "what the sender costs",
        "compressed bodies",
    )
    heading = "What receiving features costs the server"
    tables = (_ingest,)
    plots = (Plot("Bytes a CPU-second of the server, nginx and a ceiling", _draw_ingest),)


def _draw_web(document: Document) -> Any:
    servers = document["servers"].items()
    return _bars(
        "Receiving 4 MiB bodies",
        {name: (server["bytes_per_cpu_second"], *server["spread"]) for name, server in servers},
    )


def _servers(document: Document) -> Section:
    rows = []
    for name, server in document["servers"].items():
        seconds = server["seventh_client_seconds"]
        sizes = (server[key] for key in ("bytes_per_cpu_second", "peak_bytes", "large_body_bytes"))
        waits = "no answer" if seconds is None else f"{seconds:.2f} s"
        rows.append((name, *map(format_bytes, sizes), waits))
    headings = ("", "bytes a CPU-second", "peak memory", "more for a large body", "seventh client waits")
    return Section("Large bodies, and six uploads that stall at four threads", headings, rows)


class Web(Measurement[WebOptions]):
    """Compare web servers for what devices do to one: large bodies, and links that stall.

    The server of gkt serve beside gunicorn as it comes, granian and waitress, on one application that hashes
    bodies, looks at them and writes them.
    """

    name = "web"
    options = WebOptions
    measured_by = "profiling.server.web.servers:measure_servers"
    modules = ("granian", "waitress")
    quick = ("--turns", "1", "--bodies", "2", "--large-mb", "16")
    not_measured = ("TLS", "a network: everything is on loopback", "servers with more than one process")
    tables = (_servers,)
    plots = (Plot("Bytes a CPU-second of each web server", _draw_web),)

    def title(self, document: Document) -> str:
        """Name the servers."""
        return f"Web servers: {', '.join(document['servers'])}"
