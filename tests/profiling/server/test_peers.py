"""``gkt profile peers``: silent and trickling peers beside an honest device, over real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiling.server.peers.measure import MANNERS, beside_crowds
from profiling.server.peers.options import PeersOptions
from profiling.server.peers.report import Peers
from tests.conftest import LONGEST_SECONDS

pytest_plugins = ["tests.server_app.server_fixtures"]


@pytest.mark.system
def test_an_honest_device_takes_part_beside_64_peers(server_bundle: Path, tmp_path: Path) -> None:
    """Over https; the command has 2,000 as well, and plain http."""
    options = PeersOptions(most=64, num_requests=3, limit_seconds=LONGEST_SECONDS)
    lines: list[str] = []
    rows = beside_crowds(options, server_bundle, tmp_path / "peers", lines.append, tls=True)
    assert [(row["manner"], row["credential"]) for row in rows] == [
        (manner.name, manner.has_credential) for manner in MANNERS
    ]
    for row in rows:
        # It was answered and its round trained; peers without a secret have connections and no threads.
        assert 0 < row["median_request_seconds"] <= row["longest_request_seconds"]
        assert row["round_seconds"] > 0
        if not row["credential"]:
            assert row["descriptors"] > 64 > row["threads"]
    assert len(lines) == len(MANNERS)


def test_crowds_grow() -> None:
    assert PeersOptions().crowds == [64, 512, 2000]
    assert PeersOptions(most=64).crowds == [64]
    assert PeersOptions(most=100).crowds == [64, 100]


def test_a_request_that_waits_too_long_is_a_failure() -> None:
    row = {
        "peers": 512, "manner": "silent", "tls": True, "credential": False, "longest_request_seconds": 1.9,
    }  # fmt: skip
    assert Peers().failures({"crowds": [row]}) == []
    (said,) = Peers().failures({"crowds": [{**row, "longest_request_seconds": 2.5}]})
    assert said == ("512 silent peers, https, secret: none: a request took 2.5 s, at most 2 s are allowed")
