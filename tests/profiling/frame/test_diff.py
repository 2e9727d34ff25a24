"""``gkt profile diff``: noise is no change, and a change is found."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gkt_core.errors import InputError
from profiling.cli.profile import profile
from profiling.frame.diff.changes import compare_documents
from profiling.frame.diff.values import flat_values
from profiling.frame.machine import describe_machine
from profiling.frame.measuring.step_time import StepTime, noise_report, summarise
from tests.conftest import ROOT, Gkt

README = (ROOT / "docs" / "results-format.md").read_text(encoding="utf-8")


def measured(seed: int, *, factor: float = 1.0, spread: float = 0.02) -> dict[str, Any]:
    """A document of ``gkt profile edge`` with random samples around 100 ms times a factor."""
    rng = np.random.default_rng(seed)
    workloads, times = [], {}
    for name, scale in (("train_step", factor), ("extract", 1.0), ("pack", 1.0)):
        warm = summarise((scale * 100 * (1 + spread * rng.standard_normal(30))).tolist())
        cold = summarise((300 * (1 + spread * rng.standard_normal(3))).tolist())
        times[name] = warm
        workloads.append(
            {
                "name": name,
                "open_ms": cold.to_dict(),
                "cold_ms": cold.to_dict(),
                "warm_ms": warm.to_dict(),
                "images_per_second": 64e3 / warm.median_ms,
                "peak_memory_bytes": 100_000_000 + seed,
                "memory": {
                    **dict.fromkeys(
                        ("start_bytes", "opened_bytes", "first_call_bytes", "warm_bytes"), 50_000_000
                    ),
                    "end_bytes": 90_000_000,
                    "peak_bytes": 100_000_000 + seed,
                    "growth_bytes_per_call": 0.0,
                },
                "joules_per_call": None,
            }
        )
    nothing = {"governor": None, "frequency_mhz": None, "temperature_celsius": None}
    return {
        "schema": "gkt-profile-edge/1",
        "engine": "ort_training",
        "network": "resnet8",
        "workloads": workloads,
        "sustained": None,
        "sizes": {
            "bundle_bytes": {"checkpoint": 1000},
            "extra": "edge",
            "install_bytes": {"numpy": 7},
            "total_install_bytes": 7,
        },
        "conditions": {"before": nothing, "after": nothing},
        "noise": noise_report(times),
        "not_measured": ["energy"],
        "settings": {
            "batch_size": 64,
            "image_size": 32,
            "threads": 1,
            "pinned_cores": None,
            "warmup": 1,
            "codec": "fp32",
        },
        "machine": describe_machine(),
    }


def verdicts(document: dict[str, Any]) -> dict[str, str]:
    return {change["name"]: change["verdict"] for change in document["changes"]}


def test_noise_is_no_change() -> None:
    for seed in range(20):
        found = compare_documents(measured(seed), measured(seed + 100), ("a", "b"))
        assert found["num_changed"] == 0, found["changes"]
        assert 0.9 < found["time_factor"] < 1.1
        assert found["conditions"] == []


@pytest.mark.parametrize(("factor", "verdict"), [(1.3, "slower"), (0.7, "faster")])
def test_a_change_is_found(factor: float, verdict: str) -> None:
    found = compare_documents(measured(1), measured(2, factor=factor), ("a", "b"))
    changed = {name: said for name, said in verdicts(found).items() if said not in ("equal", "within noise")}
    assert changed == {"workloads train_step warm_ms": verdict}
    (change,) = [each for each in found["changes"] if each["name"] == "workloads train_step warm_ms"]
    assert change["change"] == pytest.approx(factor - 1, abs=0.03)


def test_a_small_change_in_a_quiet_run_is_below_the_limit() -> None:
    """The intervals are apart, yet no machine is so steady that 3 % mean anything."""
    found = compare_documents(measured(1, spread=1e-5), measured(2, factor=1.03, spread=1e-5), ("a", "b"))
    assert verdicts(found)["workloads train_step warm_ms"] == "within noise"


def test_a_noisy_run_says_so_and_changes_nothing() -> None:
    noisy = measured(2, factor=1.1, spread=0.4)
    found = compare_documents(measured(1), noisy, ("quiet", "noisy"))
    assert found["too_noisy_to_quote"] == ["noisy"]
    assert verdicts(found)["workloads train_step warm_ms"] == "within noise"


def test_counts_and_memory() -> None:
    before, after = measured(1), copy.deepcopy(measured(1))
    after["sizes"]["bundle_bytes"]["checkpoint"] = 1001
    after["workloads"][0]["peak_memory_bytes"] = 104_000_000
    after["workloads"][1]["peak_memory_bytes"] = 120_000_000
    after["sizes"]["install_bytes"] = {"numpy": 7, "scipy": 3}
    found = verdicts(compare_documents(before, after, ("a", "b")))
    assert found["sizes bundle_bytes checkpoint"] == "larger"
    assert found["workloads train_step peak_memory_bytes"] == "within noise"
    assert found["workloads extract peak_memory_bytes"] == "larger"
    assert found["sizes install_bytes scipy"] == "only in the second"
    assert found["sizes install_bytes numpy"] == "equal"


def test_other_conditions_are_named() -> None:
    after = measured(1)
    after["machine"] = {**after["machine"], "cpu_model": "another"}
    after["settings"] = {**after["settings"], "threads": 2}
    found = compare_documents(measured(1), after, ("a", "b"))
    assert {each["name"] for each in found["conditions"]} == {"machine cpu_model", "settings threads"}


def test_lists_go_by_name_not_by_position() -> None:
    after = measured(1)
    after["workloads"].reverse()
    assert compare_documents(measured(1), after, ("a", "b"))["num_changed"] == 0
    values = flat_values(measured(1))
    assert isinstance(values["workloads pack warm_ms"], StepTime)
    assert not any("images_per_second" in name for name in values)


def test_ratios_of_two_runs_are_compared() -> None:
    """As gkt profile compare and gkt profile simulation quote them."""

    def with_ratios(first: float, second: float) -> dict[str, Any]:
        beside = {"step_ms": {"pytorch": {"value": first, "paper": 31.7}}}
        return {**measured(1), "ratios": {"resnet110": beside, "phase": {"median": second, "lowest": 0.1}}}

    found = compare_documents(with_ratios(10.0, 1.0), with_ratios(10.9, 0.91), ("a", "b"))
    assert [(each["name"], each["agrees"]) for each in found["ratios"]] == [
        ("resnet110 step_ms pytorch", True),
        ("phase", True),
    ]
    assert found["ratios_agree"] is True
    assert found["ratios"][0]["change"] == pytest.approx(0.09)
    apart = compare_documents(with_ratios(10.0, 1.0), with_ratios(11.1, 1.0), ("a", "b"))
    assert apart["ratios_agree"] is False
    assert [each["agrees"] for each in apart["ratios"]] == [False, True]
    assert compare_documents(measured(1), measured(2), ("a", "b"))["ratios_agree"] is None


def test_the_command(tmp_path: Path) -> None:
    paths = [tmp_path / "before.json", tmp_path / "after.json"]
    for path, document in zip(paths, (measured(1), measured(2, factor=2)), strict=True):
        path.write_text(json.dumps(document))
    html, again = tmp_path / "diff.html", tmp_path / "diff.json"
    arguments = ["diff", *map(str, paths), "--out", str(html), "--out", str(again)]
    result = CliRunner().invoke(profile, arguments, catch_exceptions=False, env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert "slower" in result.stdout and "before" in result.stdout
    assert html.read_text().count("data:image/svg+xml;base64,") == 1
    document = json.loads(again.read_text())
    for key in {*document, *document["changes"][0]}:
        assert re.search(rf"`{key}`", README), key
    shown = CliRunner().invoke(profile, ["show", str(again)], catch_exceptions=False)
    assert shown.exit_code == 0


def test_different_kinds_are_refused(gkt: Gkt, tmp_path: Path) -> None:
    before = measured(1)
    with pytest.raises(InputError, match="compare two files of one command"):
        compare_documents(before, {**before, "schema": "gkt-profile-compare/1"}, ("a", "b"))
    (tmp_path / "a.json").write_text(json.dumps(before))
    (tmp_path / "b.json").write_text(json.dumps({"schema": "something/1"}))
    done = gkt("profile", "diff", "a.json", "b.json")
    assert done.returncode == 2
    assert "b.json" in done.stderr and "something/1" in done.stderr
    assert "Traceback" not in done.stderr
