"""``gkt profile engines``: its document, its verdicts, its refusals. No test depends on a measured time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gkt_core.config.allocator import TRAINING_ALLOCATOR
from gkt_core.errors import InputError
from profiling.cli.profile import profile
from profiling.device.engines.device_memory import device_run_peak_bytes
from profiling.device.engines.measure import (
    _bound,
    _target,
    _targets,
    _timed,
)
from profiling.device.engines.options import EnginesOptions
from profiling.device.engines.probe import BATCH_SIZES
from profiling.frame.registry import page_of
from profiling.frame.text import to_markdown

TINY = ("engines", "--image-size", "8", "--batch-size", "4", "--steps", "2", "--warmup", "1")
STEPS = {
    "portable",
    "ort_training",
    "pytorch",
    "pytorch_channels_last",
    "pytorch_resnet56",
    "pytorch_resnet110",
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of one tiny run, without what takes a server."""
    out = tmp_path_factory.mktemp("report") / "engines.json"
    arguments = [*TINY, "--no-memory", "--no-device-run", "--json", "--out", str(out)]
    result = CliRunner().invoke(profile, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    printed: dict[str, Any] = json.loads(result.stdout)
    assert printed == json.loads(out.read_text(encoding="utf-8"))
    return printed


@pytest.mark.system
def test_every_candidate_took_as_many_steps(document: dict[str, Any]) -> None:
    assert set(document["step_ms"]) == STEPS
    assert all(time["n"] == 2 and time["median_ms"] > 0 for time in document["step_ms"].values())
    assert set(document["extraction_ms"]) == {"portable", "pytorch", "pytorch_channels_last"}
    assert set(document["pytorch_layouts"]) == {"pytorch_resnet56", "pytorch_resnet110"}
    assert set(document["pytorch_layouts"].values()) <= {"contiguous", "channels_last"}
    assert document["settings"]["allocator"] == TRAINING_ALLOCATOR
    assert document["peak_memory_bytes"] is None
    assert {"peak memory (--no-memory)", "memory of gkt edge run"} <= set(document["not_measured"])


@pytest.mark.system
def test_batch_sizes_from_1_to_256_work_in_one_session(document: dict[str, Any]) -> None:
    found = [entry["batch_size"] for entry in document["batch_sizes"]]
    assert found == BATCH_SIZES
    assert found[0] == 1 and found[-1] == 256 and {63, 64, 65} <= set(found)


@pytest.mark.system
def test_two_threads_stand_beside_one_where_there_are_two_cores(document: dict[str, Any]) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        assert document["threads"] is None
        assert any(line.startswith("two threads") for line in document["not_measured"])
        return
    for entry in document["threads"]:
        one, two = entry["one_thread_ms"]["median_ms"], entry["two_threads_ms"]["median_ms"]
        assert entry["two_over_one"] == pytest.approx(two / one, rel=1e-3)


@pytest.mark.system
def test_the_bound_is_the_step_at_the_rate_of_the_faster_product(document: dict[str, Any]) -> None:
    sgemm = document["sgemm"]
    assert sgemm["bound_ms"] == pytest.approx(sgemm["step_gflops"] / sgemm["gflops_per_second"] * 1e3)
    found = {"sgemm_ms": {"a": {"median_ms": 4.0}, "b": {"median_ms": 2.0}}, "sgemm_flops": 2_000_000}
    bound = _bound(found, 10_000_000)
    assert bound["library"] == "b"
    assert bound["gflops_per_second"] == pytest.approx(1.0)
    assert bound["bound_ms"] == pytest.approx(10.0)


@pytest.mark.system
def test_targets_are_judged_by_what_was_measured(document: dict[str, Any]) -> None:
    medians = {"portable": 50.0, "ort_training": 100.0, "pytorch_channels_last": 60.0}
    medians |= {"pytorch": 90.0, "pytorch_resnet56": 500.0, "pytorch_resnet110": 1000.0}
    changed = {
        **document,
        "step_ms": {name: {"median_ms": value} for name, value in medians.items()},
        "sgemm": {"bound_ms": 40.0},
        "extraction_ms": {
            "portable": {"median_ms": 4.0},
            "pytorch": {"median_ms": 9.0},
            "pytorch_channels_last": {"median_ms": 7.0},
        },
        "threads": [{"two_over_one": 0.7}, {"two_over_one": 1.2}],
        "portable_peak_memory_bytes_by_batch_size": {"16": 120_000_000, "64": 170_000_000, "128": 1},
    }
    found = {row["name"]: (row["value"], row["is_met"], row["is_aim_met"]) for row in _targets(changed)}
    assert found == {
        "portable_over_ort_training": (0.5, True, False),
        "portable_over_pytorch_channels_last": (pytest.approx(50 / 60), False, False),
        "portable_over_pytorch_resnet110": (0.05, True, False),
        "portable_over_sgemm_bound": (1.25, None, True),
        # Against the faster of PyTorch's two layouts.
        "extraction_over_pytorch": (pytest.approx(4 / 7), False, None),
        "two_threads_over_one": (1.2, False, None),
        "portable_peak_memory_bytes_batch_16": (120_000_000, False, None),
        "portable_peak_memory_bytes_batch_64": (170_000_000, True, True),
    }
    assert _target("x", 1.0, 1.0, None)["is_met"] is True


@pytest.mark.system
def test_it_is_shown_with_its_targets(document: dict[str, Any]) -> None:
    text = to_markdown(page_of(document))
    assert "| portable over ort training |" in text
    assert "the faster layout of each" in text
    assert "| a whole gkt edge run | not measured |" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--batch-size", "1"), "--batch-size is 1, expected at least 2"),
        (("--steps", "0"), "--steps is 0, expected at least 1"),
        (("--threads", "0"), "--threads is 0, expected at least 1"),
        (("--image-size", "30"), "30"),
        (("--num-classes", "1"), "1"),
        (("--out", "engines.txt"), "expected one of .json"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: tuple[str, ...], named: str) -> None:
    result = CliRunner().invoke(profile, ["engines", *arguments])
    assert result.exit_code == 2 or (result.exception is not None and named in str(result.exception))
    assert named in result.output + str(result.exception)


def test_a_timing_process_that_refuses_is_heard(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(InputError, match="nothing"):
        _timed(EnginesOptions(image_size=8), tmp_path / "nothing", lines.append)
    assert lines[-1].startswith("error: ")


@pytest.mark.slow
def test_memory_of_a_whole_device_run(tmp_path: Path) -> None:
    peak = device_run_peak_bytes(tmp_path / "run", EnginesOptions(batch_size=4, image_size=8))
    assert peak is None or 30_000_000 < peak < 500_000_000
