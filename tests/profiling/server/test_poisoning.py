"""``gkt profile poisoning`` on a few digits: attackers are found, honest devices are left alone."""

import dataclasses
import json

import pytest
from torch import nn

from gkt_core import networks
from gkt_core.networks import register_server_network
from profiling.server.poisoning.attacks import ATTACKS
from profiling.server.poisoning.measure import PoisoningOptions, failures, measure_poisoning, summarise

OPTIONS = PoisoningOptions(
    image_size=8, num_seeds=1, num_honest_seeds=1, rounds=1, server_epochs=1, unprotected=False, threads=1
)


@pytest.fixture
def tiny_server(monkeypatch):
    """A server network that costs nothing: what is looked at is what devices send."""
    monkeypatch.setattr(networks, "_registered_servers", dict(networks._registered_servers))
    register_server_network(
        "tiny",
        lambda num_classes: nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * networks.TAP_CHANNELS, num_classes)
        ),
    )
    return "tiny"


def test_every_attack_is_found_and_no_honest_device(tiny_server):
    report = measure_poisoning(dataclasses.replace(OPTIONS, server_network=tiny_server), lambda phase: None)
    json.dumps(report, allow_nan=False)
    found = {(run["partition"], run["attack"]): run for run in report["runs"]}
    assert set(found) == {("iid", attack) for attack in ("none", *ATTACKS)} | {("dirichlet", "none")}
    for attack in ATTACKS:
        run = found["iid", attack]
        assert list(run["quarantined"]) == [run["attacker"]], run
    summary = report["summary"]
    assert (summary["attackers"], summary["attackers_quarantined"]) == (3, 3)
    assert summary["honest_devices_quarantined"] == 0 and summary["honest_devices_of_skewed_splits"] == 8


def test_points_are_means_over_seeds_of_each_attack():
    def run(attack, lost, quarantine=True):
        named = {"attack": attack, "attacker": "a", "quarantined": {}, "num_honest": 7}
        return {**named, "partition": "iid", "quarantine": quarantine, "lost_points": lost}

    found = summarise([run("x", 3.0), run("x", -1.0), run("y", 0.5), run("x", 40.0, quarantine=False)])
    assert found["mean_lost_points"] == {"x": 1.0, "y": 0.5}
    assert (found["most_lost_points"], found["most_lost_points_unprotected"]) == (3.0, 40.0)


def test_what_must_not_be_is_said():
    good = {"mean_lost_points": {"random_features": 1.9}, "honest_devices_quarantined": 0}
    assert failures({"summary": good}) == []
    bad = {"mean_lost_points": {"random_features": 2.5}, "honest_devices_quarantined": 1}
    (lost, honest) = failures({"summary": bad})
    assert "2.50 points" in lost and "1 honest" in honest
