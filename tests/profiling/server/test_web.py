"""``gkt profile web``: every server takes the bodies, and stalled uploads stop nobody at ours."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gkt_core.errors import ConfigError
from profiling.frame.processes import ProcessGroup, wait_until
from profiling.server.web import ingest, servers
from profiling.server.web.options import IngestOptions, WebOptions
from profiling.server.web.report import Ingest, Web
from profiling.server.web.servers import SERVERS
from tests.conftest import Gkt


def _check(report: dict[str, Any], names: Sequence[str]) -> None:
    assert list(report["servers"]) == list(names)
    for server in report["servers"].values():
        assert server["spread"][0] <= server["bytes_per_cpu_second"] <= server["spread"][1]
        assert server["spread"][0] > 0 and server["peak_bytes"] > 10_000_000
    ours = report["servers"]["gkt"]
    assert ours["large_body_bytes"] < 16_000_000, "64 MiB do not pass through memory"
    assert ours["seventh_client_seconds"] is not None
    # What buffers whole bodies first holds no thread for a stalled one.
    assert report["servers"]["waitress"]["seventh_client_seconds"] is not None


def test_ours_beside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("gkt", "waitress")
    monkeypatch.setattr(servers, "SERVERS", names)
    monkeypatch.setattr(servers, "_PATIENCE_SECONDS", 240.0)
    document = Web().document(WebOptions(1, 1, 64))
    _check(document, names)
    # None of them is committed: that every document can be shown, other tests see from the committed ones.
    (table,) = Web().sections(document)
    assert [row[0] for row in table.rows] == list(names)
    assert all(plot.draw(document).axes for plot in Web.plots)


@contextlib.contextmanager
def _in_place_of_nginx(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server that stores what it is sent, where there is no nginx."""
    stored = folder / "stored"
    stored.mkdir(parents=True)
    words = ["waitress", str(port), str(stored), "4", "30"]
    with ProcessGroup() as processes:
        server = processes.start(
            "waitress", words, log=folder / "log", module="profiling.server.web.body_server"
        )

        def listens() -> bool:
            assert server.exit_code is None, server.log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return True
            return False

        wait_until(listens, 300, lambda: "it does not listen")
        yield server.process


@pytest.mark.slow  # a real server takes shards in many tests, and the turns are those of the test above
def test_ours_beside_what_only_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "running_nginx", _in_place_of_nginx)
    document = Ingest().document(IngestOptions(turns=1, bodies=2))
    assert document["settings"] == {"turns": 1, "bodies": 2, "body_bytes": 4_185_976}
    assert document["ratio"] == document["ours"] / document["nginx"]
    assert document["ratio_to_ceiling"] == document["ours"] / document["ceiling"]
    for name in ("ours", "nginx", "ceiling"):
        lowest, highest = document["spread"][name]
        assert 0 < lowest == document[name] == highest, "one turn counts"
    (table,) = Ingest().sections(document)
    assert len(table.rows) == 3


@pytest.mark.slow  # every day `test_ours_beside_another` runs two of the four
def test_all_of_them(gkt: Gkt) -> None:
    done = gkt("profile", "web", "--turns", "2", "--bodies", "4", "--large-mb", "64", "--json")
    assert done.returncode == 0, done.stderr
    _check(json.loads(done.stdout), SERVERS)


@pytest.mark.parametrize("given", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 201, 1), (1, 1, 1001)])
def test_what_cannot_be_measured(given: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        WebOptions(*given)
    if not all(given[:2]) or max(given[:2]) > 200:
        with pytest.raises(ConfigError, match="expected"):
            IngestOptions(*given[:2])
