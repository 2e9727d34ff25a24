"""``gkt profile poisoning`` on a few digits: attackers are found, honest devices are left alone."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from torch import nn

from gkt_core import networks
from gkt_core.errors import ConfigError
from gkt_core.networks import register_server_network
from profiling.server.poisoning import measure
from profiling.server.poisoning.attacks import ATTACKS
from profiling.server.poisoning.honest import KINDS
from profiling.server.poisoning.measure import measure_poisoning, summarise, summarise_kinds
from profiling.server.poisoning.options import PoisoningOptions
from profiling.server.poisoning.report import Poisoning
from profiling.server.poisoning.turned import CASES, measure_attack, summarise_attacks

SETTINGS = {"num_clients": 8, "dataset": "digits", "dirichlet_alpha": 0.1}


@pytest.fixture
def tiny_server(monkeypatch: pytest.MonkeyPatch) -> str:
    """A server network that costs nothing: what is looked at is what devices send."""
    monkeypatch.setattr(networks, "_registered_servers", dict(networks._registered_servers))
    register_server_network(
        "tiny",
        lambda num_classes: nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * networks.TAP_CHANNELS, num_classes)
        ),
    )
    return "tiny"


@pytest.mark.slow  # every day `test_odd_devices` has the attacks and the odd devices
def test_every_attack_is_seen_and_no_honest_device(tiny_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "KINDS", KINDS[:1])
    monkeypatch.setattr(measure, "CASES", CASES[2:])
    monkeypatch.setattr(measure, "measure_attack", partial(measure_attack, num_samples=96))
    options = PoisoningOptions(
        image_size=8, num_seeds=1, num_honest_seeds=1, num_kind_seeds=2, num_attack_seeds=1, rounds=1,
        server_epochs=1,
        unprotected=False, threads=1, server_network=tiny_server,
    )  # fmt: skip
    report = measure_poisoning(options, lambda line: None)
    json.dumps(report, allow_nan=False)
    runs = {(run["partition"], run["attack"]): run for run in report["runs"]}
    assert set(runs) == {("iid", attack) for attack in ("none", *ATTACKS)} | {("dirichlet", "none")}
    for attack in ATTACKS:
        run = runs["iid", attack]
        assert list(run["quarantined"]) == [run["attacker"]], run
    summary = report["summary"]
    assert (summary["attackers"], summary["attackers_quarantined"]) == (6, 6)
    assert summary["honest_devices_quarantined"] == 0 and summary["honest_devices_of_skewed_splits"] == 8
    # A fleet of cameras, then two of them among others.
    honest = report["honest"]
    assert (honest["num_devices"], honest["num_others"], honest["num_quarantined"]) == (10, 6, 0)
    assert [kind["kind"] for kind in honest["kinds"]] == [KINDS[0].name]
    # Among cameras: the other cases are in the tests of the judge.
    caught = report["caught"]
    assert (caught["num_attackers"], caught["num_caught"]) == (6, 6), caught["cases"]
    assert (caught["num_honest"], caught["num_quarantined"]) == (7 * 6, 0)
    assert all(case["reasons"] and case["num_runs"] == 1 for case in caught["cases"])
    assert Poisoning().failures({**report, "summary": {**summary, "mean_lost_points": {}}}) == []
    sections = Poisoning().sections(report | {"settings": SETTINGS})
    titles = [section.title for section in sections]
    assert titles[1] == "One of 8 devices that train by themselves attacks, images of 8 pixels"
    assert titles[2] == "Honest devices that look odd, images of 8 pixels"
    assert "6 of 6 attackers" in sections[1].notes[0]
    # A document of an earlier version has no such parts; one of such devices alone has no others.
    earlier = {name: part for name, part in report.items() if name not in ("honest", "caught")}
    assert [section.title for section in Poisoning().sections(earlier | {"settings": SETTINGS})] == [
        titles[0],
        titles[3],
    ]
    alone = report | {"settings": SETTINGS, "runs": [], "summary": summarise([])}
    assert [section.title for section in Poisoning().sections(alone)] == titles[1:3]


def test_honest_devices_are_counted_by_kind() -> None:
    def run(kind: str, seed: int, *held: str) -> dict[str, Any]:
        quarantined = {each: {"round_num": 2, "reason": "noise"} for each in held}
        return {
            "kind": kind, "seed": seed, "company": "x", "num_devices": 2, "num_others": 6,
            "quarantined": quarantined,
        }  # fmt: skip

    honest = summarise_kinds([run("a", 0), run("b", 0, "c1"), run("a", 1, "c2", "c3")], 16)
    assert (honest["num_devices"], honest["num_others"], honest["num_quarantined"]) == (6, 18, 3)
    assert [(kind["kind"], kind["num_runs"], len(kind["quarantined"])) for kind in honest["kinds"]] == [
        ("a", 2, 2),
        ("b", 1, 1),
    ]
    assert honest["kinds"][1]["quarantined"] == [
        {"client_id": "c1", "seed": 0, "company": "x", "round_num": 2, "reason": "noise"}
    ]
    summary = {"mean_lost_points": {}, "honest_devices_quarantined": 1}
    (failure,) = Poisoning().failures({"summary": summary, "honest": honest})
    assert failure == "4 honest devices were quarantined"


def test_an_attack_that_is_not_seen_is_named() -> None:
    def run(attack: str, seed: int, *held: str) -> dict[str, Any]:
        quarantined = {each: {"round_num": 2, "reason": f"why {each}"} for each in held}
        return {
            "case": "somewhere", "attack": attack, "seed": seed, "attacker": "a", "num_honest": 7,
            "quarantined": quarantined,
        }  # fmt: skip

    caught = summarise_attacks([run("x_y", 0, "a"), run("x_y", 1), run("z", 0, "a", "b")], 16)
    assert (caught["num_attackers"], caught["num_caught"], caught["num_quarantined"]) == (3, 2, 1)
    assert caught["cases"][0]["reasons"] == ["why a"]
    summary = {"mean_lost_points": {}, "honest_devices_quarantined": 0}
    assert Poisoning().failures({"summary": summary, "caught": caught}) == [
        "somewhere: x y was seen 1 times of 2",
        "1 honest devices were quarantined",
    ]


def test_points_are_means_over_seeds_of_each_attack() -> None:
    def run(attack: str, lost: float, quarantine: bool = True) -> dict[str, Any]:
        named = {"attack": attack, "attacker": "a", "quarantined": {}, "num_honest": 7}
        return {**named, "partition": "iid", "quarantine": quarantine, "lost_points": lost}

    summary = summarise([run("x", 3.0), run("x", -1.0), run("y", 0.5), run("x", 40.0, quarantine=False)])
    assert summary["mean_lost_points"] == {"x": 1.0, "y": 0.5}
    assert (summary["most_lost_points"], summary["most_lost_points_unprotected"]) == (3.0, 40.0)


def test_what_must_not_be_is_said() -> None:
    good = {"mean_lost_points": {"random_features": 1.9}, "honest_devices_quarantined": 0}
    assert Poisoning().failures({"summary": good}) == []
    bad = {"mean_lost_points": {"random_features": 2.5}, "honest_devices_quarantined": 1}
    (lost, honest) = Poisoning().failures({"summary": bad})
    assert "2.50 points" in lost and "1 honest" in honest
    # The exit code is 1, as of any error without a kind.
    assert Poisoning.error.exit_code == 1


@pytest.mark.parametrize("options", [{"num_clients": 1}, {"num_seeds": -1}, {"rounds": 0}])
def test_wrong_options(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected at least"):
        PoisoningOptions(**options)  # type: ignore[arg-type] # others are names and paths
