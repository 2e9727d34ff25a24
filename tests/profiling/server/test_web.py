"""``gkt profile web``: every server takes the bodies, and stalled uploads stop nobody at ours."""

import json

import pytest

from gkt_core.errors import ConfigError
from profiling.server.web import servers
from profiling.server.web.servers import SERVERS, ServerOptions, measure_servers


def check(report, names):
    assert list(report["servers"]) == list(names)
    for found in report["servers"].values():
        assert found["spread"][0] <= found["bytes_per_cpu_second"] <= found["spread"][1]
        assert found["spread"][0] > 0 and found["peak_bytes"] > 10_000_000
    ours = report["servers"]["gkt"]
    assert ours["large_body_bytes"] < 16_000_000, "64 MiB do not pass through memory"
    assert ours["seventh_client_seconds"] is not None
    # What buffers whole bodies first holds no thread for a stalled one.
    assert report["servers"]["waitress"]["seventh_client_seconds"] is not None
    json.dumps(report, allow_nan=False)


def test_ours_beside_another(monkeypatch):
    names = ("gkt", "waitress")
    monkeypatch.setattr(servers, "SERVERS", names)
    monkeypatch.setattr(servers, "_PATIENCE_SECONDS", 240.0)
    check(measure_servers(ServerOptions(1, 1, 64), lambda line: None), names)


@pytest.mark.slow
def test_all_of_them(gkt):
    done = gkt("profile", "web", "--turns", "2", "--bodies", "4", "--large-mb", "64", "--json")
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout), SERVERS)


@pytest.mark.parametrize("given", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 201, 1), (1, 1, 1001)])
def test_what_cannot_be_measured(given):
    with pytest.raises(ConfigError, match="expected at least 1"):
        ServerOptions(*given)
