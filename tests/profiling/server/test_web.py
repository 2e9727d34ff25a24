"""``gkt profile web``: every server takes the bodies, and stalled uploads stop nobody at ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from gkt_core.errors import ConfigError
from profiling.server.web import servers
from profiling.server.web.options import IngestOptions, WebOptions
from profiling.server.web.report import Web
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


@pytest.mark.slow  # every day the test above runs two of the four
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
