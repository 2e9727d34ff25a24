"""``gkt profile simulation``: what it reports. How fast anything is, no test says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gkt_core.errors import ConfigError
from profiling.experiments.speed.measure import _ratio
from profiling.experiments.speed.options import SpeedOptions
from profiling.frame.registry import page_of
from tests.conftest import ROOT, Gkt

README = (ROOT / "docs" / "results-format.md").read_text(encoding="utf-8")


@pytest.mark.system
def test_report(gkt: Gkt, tmp_path: Path) -> None:
    done = gkt(
        "profile", "simulation", "--examples", "64", "--server-examples", "16", "--clients", "4",
        "--image-size", "8", "--batch-size", "16", "--repeats", "9", "--max-seconds", "0",
        "--out", "speed.json", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "speed.json").read_text())
    assert report["schema"] == "gkt-profile-simulation/1" and report["not_measured"]
    shown = page_of(report)
    assert "clients phase many over one" in [row[0] for section in shown.sections for row in section.rows]
    assert all(name in README for name in ("`candidates`", "`ratios`", "`samples_per_second`"))
    assert set(report["candidates"]) == {
        "one_client", "many_clients", "client_steps", "bare_edge_loop", "server_update", "bare_server_loop",
    }  # fmt: skip
    for found in report["candidates"].values():
        assert 0 < found["lowest"] <= found["samples_per_second"] <= found["highest"]
        assert found["n"] == 2, "of nine turns only those that have to be"
    for ratio in report["ratios"].values():
        assert 0 < ratio["lowest"] <= ratio["median"] <= ratio["highest"]
    assert report["settings"]["num_clients"] == 4
    assert report["machine"]["packages"]["torch"]


def test_ratios_are_taken_within_a_turn() -> None:
    assert _ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == {
        "median": 2.0,
        "lowest": 2.0,
        "highest": 3.0,
        "n": 3,
    }


@pytest.mark.parametrize(
    "options",
    [{"repeats": 0}, {"threads": 0}, {"num_clients": 0}, {"num_examples": 20}, {"num_server_examples": 9}],
)
def test_wrong_options(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        SpeedOptions(**options)  # type: ignore[arg-type]
