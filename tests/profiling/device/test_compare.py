"""``gkt profile compare``: its numbers, its document, its refusals. No test depends on a measured time."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from gkt_core.bundle.manifest import Bundle
from gkt_core.errors import GKTError, InputError
from gkt_core.nn.execution import torch_threads
from profiling import describe_machine
from profiling.cli.profile import profile
from profiling.counted.network_cost import NETWORK_NAMES, NetworkCost, count_network
from profiling.counted.run_cost import run_totals
from profiling.counted.run_size import RunSize
from profiling.device.compare.measure import TIMED, _network_entry
from profiling.device.compare.ratios import ratios
from profiling.device.peak_memory import engine_peak_bytes, pytorch_peak_bytes
from profiling.device.step_options import StepOptions
from profiling.frame.measuring.pinning import pinned
from profiling.frame.measuring.step_time import StepTime, summarise, time_interleaved
from tests.conftest import ROOT, Gkt

TINY = ("compare", "--image-size", "8", "--batch-size", "4", "--steps", "2", "--warmup", "1", "--no-memory")


def step_time(median_ms: float) -> StepTime:
    return summarise([median_ms] * 5)


@pytest.fixture(scope="module")
def costs() -> dict[str, NetworkCost]:
    return {name: count_network(name, num_classes=10, image_size=32) for name in NETWORK_NAMES}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document on stdout and the one in the file, of one tiny run."""
    out = tmp_path_factory.mktemp("report") / "new" / "compare.json"
    result = CliRunner().invoke(profile, [*TINY, "--json", "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout), json.loads(out.read_text(encoding="utf-8"))


@pytest.mark.system
def test_the_file_holds_what_is_printed(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    printed, in_file = written
    assert printed == in_file


@pytest.mark.system
def test_the_document_has_the_documented_keys(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    report, _ = written
    assert set(report) == {
        "schema", "networks", "ratios", "run", "noise", "not_measured", "settings", "machine",
    }  # fmt: skip
    networks = {network["name"]: network for network in report["networks"]}
    assert tuple(networks) == NETWORK_NAMES
    for network in networks.values():
        assert 0 < network["forward_macs"] < network["fvcore_macs"] < network["train_flops"]
        assert all(name.startswith("aten::") and n > 0 for name, n in network["fvcore_unsupported"].items())
        assert network["peak_memory_bytes"] is None
        for time in network["step_ms"].values():
            assert {"median_ms", "p90_ms", "n"} <= set(time)
            assert 2 <= time["n"] <= 16
            assert 0 < time["low_ms"] <= time["median_ms"] <= time["p90_ms"]
    timed = [(name, engine) for name, network in networks.items() for engine in network["step_ms"]]
    assert sorted(timed) == sorted(TIMED)
    assert len(timed) == 23
    # ResNet's additions are what fvcore leaves out.
    assert "aten::add_" in networks["resnet8"]["fvcore_unsupported"]
    assert set(report["ratios"]) == {"resnet56", "resnet110", "resnet8_share_of_resnet110_step"}
    for name in ("resnet56", "resnet110"):
        assert set(report["ratios"][name]["step_ms"]) == {"fastest", "ort_training", "pytorch"}
    assert report["settings"]["threads"] == 1
    assert report["settings"]["batch_size"] == 4
    assert "peak memory (--no-memory)" in report["not_measured"]


@pytest.mark.system
def test_every_key_is_documented(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    readme = (ROOT / "docs" / "results-format.md").read_text(encoding="utf-8")
    report, _ = written
    keys = {*report, *report["ratios"], *report["networks"][0], *report["noise"], *report["run"]}
    for key in keys | {*report["run"]["methods"][0], *report["networks"][0]["step_ms"]["pytorch"]}:
        assert re.search(rf"[`.]{key}`", readme), key


@pytest.mark.system
def test_a_person_gets_tables(written: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    report, _ = written
    (tmp_path / "c.json").write_text(json.dumps(report))
    outs = ["--out", str(tmp_path / "c.html"), "--out", str(tmp_path / "c.md")]
    result = CliRunner().invoke(
        profile, ["show", str(tmp_path / "c.json"), *outs], catch_exceptions=False, env={"COLUMNS": "80"}
    )
    assert result.exit_code == 0
    for text in (
        "MACs",
        "FLOPs = 2 x MACs",
        "resnet110",
        "ort_training",
        "1 thread",
        "Not measured",
        "Eq. 12",
        "30 ms for ResNet-8 against 950 ms",
    ):
        assert text in result.stdout
    page = (tmp_path / "c.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 4
    for figure in ("Fig. 4", "Fig. 5"):
        assert f"paper&#39;s {figure})" in page
    assert "| resnet56 | ort_training |" in (tmp_path / "c.md").read_text()


def test_totals_of_a_run(costs: dict[str, NetworkCost]) -> None:
    """Twice the rounds cost twice as much; two local epochs cost a device of FedAvg twice as much."""

    def methods(**changes: int) -> dict[tuple[str, str], dict[str, Any]]:
        size = RunSize(**{"samples": 1000, "rounds": 10, **changes})
        totals = run_totals(size, costs, num_classes=10, image_size=32)
        return {(method["method"], method["network"]): method for method in totals["methods"]}

    plain = methods()
    assert plain["fedavg", "resnet56"]["device_flops"] == 10_000 * costs["resnet56"].train_flops
    assert plain["split_learning", "resnet56"]["device_flops"] == 10_000 * costs["extractor"].train_flops
    edge = costs["resnet8"]
    assert plain["fedgkt", "resnet110"]["device_flops"] == 10_000 * (edge.train_flops + 2 * edge.forward_macs)
    # ResNet-56 is extractor + ResNet-55. Split learning's server also computes the features' gradient,
    # which the whole network's count has as well.
    whole = plain["split_learning", "resnet56"]
    assert whole["device_flops"] + whole["server_flops"] == 10_000 * costs["resnet56"].train_flops
    assert plain["fedgkt", "resnet56"]["server_flops"] < 20 * whole["server_flops"]
    for key, method in methods(rounds=20).items():
        assert method["device_flops"] == 2 * plain[key]["device_flops"]
        assert method["server_flops"] == 2 * plain[key]["server_flops"]
        assert method["paper_bytes"] == pytest.approx(2 * plain[key]["paper_bytes"])
    twice = methods(local_epochs=2)
    assert twice["fedavg", "resnet110"]["device_flops"] == 2 * plain["fedavg", "resnet110"]["device_flops"]
    assert twice["fedavg", "resnet110"]["paper_bytes"] == plain["fedavg", "resnet110"]["paper_bytes"]


def test_peak_memory_is_of_a_fresh_process(digits_bundle: Bundle) -> None:
    engine = engine_peak_bytes(digits_bundle.path, batch_size=4, threads=1)
    pytorch = pytorch_peak_bytes("extractor", StepOptions(batch_size=4, image_size=16))
    # No PyTorch in the engine's process; this one, with everything loaded, is counted in neither.
    assert 30e6 < engine < pytorch
    with pytest.raises(InputError, match="is no artifact bundle"):
        engine_peak_bytes(digits_bundle.path / "nowhere", batch_size=4, threads=1)


def test_memory_of_a_device_stands_for_a_network(costs: dict[str, NetworkCost]) -> None:
    memory = {("resnet8", "ort_training"): 5, ("resnet8", "pytorch"): 9, ("resnet56", "pytorch"): 70}
    entry = _network_entry(costs["resnet8"], {}, memory)
    assert entry["peak_memory_bytes"] == 5
    assert entry["peak_memory_bytes_by_engine"] == {"ort_training": 5, "pytorch": 9}
    assert _network_entry(costs["resnet56"], {}, memory)["peak_memory_bytes"] == 70


def test_ratios_of_the_paper(costs: dict[str, NetworkCost]) -> None:
    found = ratios(list(costs.values()), {})
    for name, macs, parameters, paper_macs, paper_parameters in (
        ("resnet56", 9.07, 55.9, 9, 54),
        ("resnet110", 17.4, 108.4, 17, 105),
    ):
        assert found[name]["forward_macs"]["value"] == pytest.approx(macs, rel=0.02)
        assert found[name]["forward_macs"]["paper"] == paper_macs
        assert found[name]["num_parameters"]["value"] == pytest.approx(parameters, abs=0.05)
        assert found[name]["num_parameters"]["paper"] == paper_parameters
        assert found[name]["step_ms"] == {}


def test_ratios_of_step_times(costs: dict[str, NetworkCost]) -> None:
    """Both networks on the same engine; an engine without either has no ratio."""
    times = {
        ("resnet8", "ort_training"): step_time(100.0),
        ("resnet8", "pytorch"): step_time(50.0),
        ("resnet56", "pytorch"): step_time(500.0),
        ("resnet110", "ort_training"): step_time(2000.0),
        ("resnet110", "pytorch"): step_time(1000.0),
    }
    found = ratios(list(costs.values()), times)
    beside = {"value": 10.0, "paper": None}
    assert found["resnet56"]["step_ms"] == {"fastest": beside, "pytorch": beside}
    assert found["resnet110"]["step_ms"]["ort_training"] == {"value": 20.0, "paper": 31.6667}
    # Each network on its own fastest engine: no longer PyTorch for both.
    times["resnet8", "portable"] = step_time(25.0)
    assert ratios(list(costs.values()), times)["resnet110"]["step_ms"]["fastest"]["value"] == 40.0
    assert found["resnet8_share_of_resnet110_step"] == {
        "fastest": {"value": 0.05, "paper": 0.03},
        "ort_training": {"value": 0.05, "paper": 0.03},
        "pytorch": {"value": 0.05, "paper": 0.03},
    }


def test_steps_take_turns_and_the_warm_up_does_not_count() -> None:
    calls: list[str] = []
    now = 0

    def step(name: str, milliseconds: list[int]) -> Callable[[], None]:
        remaining = iter(milliseconds)

        def call() -> None:
            nonlocal now
            calls.append(name)
            now += next(remaining) * 1_000_000

        return call

    times = time_interleaved(
        {"a": step("a", [900, 1, 2, 3]), "b": step("b", [900, 10, 10, 40])},
        num_steps=3,
        num_warmup=1,
        clock=lambda: now,
    )
    assert "".join(calls) == "abababab"
    assert (times["a"].median_ms, times["a"].n) == (2.0, 3)
    assert times["a"].p90_ms == pytest.approx(2.8)
    assert (times["b"].median_ms, times["b"].n) == (10.0, 3)
    assert times["b"].p90_ms == pytest.approx(34.0)


def test_short_steps_are_taken_several_times_a_turn() -> None:
    now, calls = 0, []

    def step(name: str, ms: float) -> Callable[[], None]:
        def call() -> None:
            nonlocal now
            calls.append(name)
            now += int(ms * 1e6)

        return call

    times = time_interleaved(
        {"short": step("s", 3), "long": step("l", 12), "tiny": step("t", 0.001)},
        num_steps=2,
        num_warmup=1,
        fill_ms=10,
        clock=lambda: now,
    )
    assert "".join(calls) == "slt" + 2 * ("sss" + "l" + 8 * "t")
    assert {name: time.n for name, time in times.items()} == {"short": 6, "long": 2, "tiny": 16}
    assert times["short"].median_ms == 3.0


@pytest.mark.parametrize("n", [900, 1000, 1001, 20_000])
def test_the_interval_of_a_median_of_many_samples(n: int) -> None:
    found = summarise(np.arange(n, dtype=float).tolist())
    # 1.96 standard deviations of a binomial count, rounded to whole samples.
    assert found.median_ms - found.low_ms == pytest.approx(0.98 * n**0.5, abs=1.6)
    assert found.high_ms - found.median_ms == pytest.approx(0.98 * n**0.5, abs=1.6)


def test_one_sample_is_its_own_summary() -> None:
    found = summarise([7.0])
    assert {found.median_ms, found.p90_ms, found.p95_ms, found.low_ms, found.high_ms} == {7.0}
    assert (found.n, found.iqr_ms, found.drift) == (1, 0.0, 0.0)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
def test_cores_are_put_back() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1) as cores:
        assert cores == sorted(before)[:1]
        assert os.sched_getaffinity(0) == set(cores or ())
    assert os.sched_getaffinity(0) == before


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine["cpu_model"]
    assert 1 <= machine["num_usable_cores"] <= machine["num_cores"]
    assert machine["python"] == ".".join(map(str, sys.version_info[:3]))
    assert machine["packages"]["torch"] == torch.__version__.partition("+")[0]
    json.dumps(machine)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "--steps is 0, expected at least 1"),
        (("--warmup", "-1"), "--warmup is -1, expected at least 0"),
        (("--batch-size", "1"), "--batch-size is 1, expected at least 2"),
        (("--threads", "0"), "--threads is 0, expected at least 1"),
        (("--image-size", "30"), "image size is 30, expected a multiple of 4"),
        (("--num-classes", "1"), "number of classes is 1"),
        (("--rounds", "0"), "--rounds is 0, expected at least 1"),
        (("--out", "."), "is a folder"),
    ],
)
def test_options_that_measure_nothing_are_refused(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(profile, ["compare", *arguments])
    assert isinstance(result.exception, GKTError)
    assert message in str(result.exception)


def test_bad_input_ends_with_exit_code_2(gkt: Gkt) -> None:
    for arguments, message in (
        (("--batch-size", "1"), "--batch-size is 1"),
        (("--steps", "many"), "not a valid integer"),
    ):
        done = gkt("profile", "compare", *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not done.stdout
