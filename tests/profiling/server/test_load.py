"""``gkt profile load``: many devices at one server, its memory round by round."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import pytest

from gkt_core.errors import ConfigError, RunFailedError
from profiling.server.load.light_device import LightDevice
from profiling.server.load.measure import load_server
from profiling.server.load.memory import MemorySample, between, growth_per_round
from profiling.server.load.options import LoadOptions
from profiling.server.load.report import Load

pytest_plugins = ["tests.server_app.server_fixtures"]


@pytest.mark.system
def test_light_devices_finish_a_run_and_its_memory_is_told(server_bundle: Path, tmp_path: Path) -> None:
    """A few devices, four rounds; the command has 200."""
    options = LoadOptions(num_devices=6, rounds=4, num_examples=6, poll_seconds=0.05, limit_seconds=480)
    lines: list[str] = []
    report = load_server(options, server_bundle, tmp_path / "load", lines.append)
    assert len(report["seconds"]["rounds"]) == 4 and min(report["seconds"]["rounds"]) > 0
    # Each device: joins and asks twice for the run, and in each round what is missing, 3 shards, a report.
    devices = report["devices"]
    assert devices["num_requests"] >= 6 * (2 + 4 * 5) and devices["upload_bytes"] > 6 * 4 * 1000
    for name in ("web", "trainer"):
        memory = report["memory"][name]
        assert memory["num_processes"] == 1, "none was started again"
        assert len(memory["rounds"]) == 4
        assert 1e6 < memory["before"]["pss_bytes"] <= memory["before"]["peak_rss_bytes"] * 1.01
    assert report["memory"]["trainer"]["after"] is None, "it ends with the run"
    assert sum("have sent their part" in line for line in lines) == 4


def test_what_grows_is_a_failure() -> None:
    assert Load().failures({"grows": []}) == []
    assert Load().failures({"grows": ["trainer", "web"]}) == ["memory grows with the rounds: trainer, web"]
    assert growth_per_round([]) == growth_per_round([7.0]) == 0
    assert growth_per_round([5.0, 5.0, 5.0]) == 0
    assert growth_per_round([1.0, 3.0, 5.0]) == pytest.approx(2)
    assert growth_per_round([5.0, 1.0, 5.0, 1.0, 5.0]) == pytest.approx(0)


def test_looks_within_some_seconds() -> None:
    samples = [MemorySample(at, name, 1, 2, 3, 4, 5) for at in (1.0, 2.0, 3.0) for name in ("web", "trainer")]
    assert [sample.seconds for sample in between(samples, "web", 1.0, 3.0)] == [1.0, 2.0]


def test_a_device_stops_when_another_has_failed() -> None:
    stopping = threading.Event()
    # Nobody listens there.
    device = LightDevice(
        "http://127.0.0.1:9", "token", "device-0", 0, 4, 2, threading.Barrier(1), lambda num: None, stopping
    )
    stopping.set()
    with pytest.raises(RunFailedError, match="device-0 was stopped"):
        device.run(ssl.create_default_context())


@pytest.mark.parametrize("options", [{"num_devices": 0}, {"rounds": 3}, {"num_examples": 1}])
def test_wrong_options(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected at least"):
        LoadOptions(**options)
