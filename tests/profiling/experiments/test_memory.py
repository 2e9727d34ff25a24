"""``gkt profile memory``: real processes within their estimates, and complaints where they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gkt_core.config.run_config import build_run_config
from profiling.experiments.demo.live import LiveDisplay
from profiling.experiments.demo.options import DemoOptions
from profiling.experiments.demo.run import DemoRun
from profiling.experiments.memory.report import Memory
from tests.conftest import Gkt

PROCESSES = ("device", "trainer")


def measured(gkt: Gkt, tmp_path: Path, *arguments: str) -> dict[str, Any]:
    done = gkt("profile", "memory", *arguments, "--out", "memory.json", "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((tmp_path / "memory.json").read_text())
    return report


@pytest.mark.system
def test_real_processes_stay_within_estimates(gkt: Gkt, tmp_path: Path) -> None:
    report = measured(gkt, tmp_path, *Memory.quick)
    assert list(report["cases"]) == ["resnet8-8", "resnet8-stride4-8"]
    for case in report["cases"].values():
        assert case["codec"] == "uint8" and case["shard_samples"] == 64
        assert len(case["device"]["peaks_megabytes"]) == 1
        for process in PROCESSES:
            one = case[process]
            assert one["batch_size"] == 64
            own = one["peak_megabytes"] - one["files_megabytes"]
            assert 20 < own < one["estimated_megabytes"] < one["limit_megabytes"]
    assert [case["sample_bytes"] for case in report["cases"].values()] == [16 * 8 * 8, 16 * 2 * 2]


@pytest.mark.slow
def test_three_devices_of_224_pixels_fit_into_a_small_machine(gkt: Gkt, tmp_path: Path) -> None:
    """Each device below 1.2 GB and the trainer below 4 GB, as the command itself complains otherwise."""
    report = measured(gkt, tmp_path, "--size", "224")
    plain, strided = (report["cases"][f"{name}-224"] for name in ("resnet8", "resnet8-stride4"))
    assert len(plain["device"]["peaks_megabytes"]) == 3
    assert plain["device"]["peak_megabytes"] < 1200 and plain["trainer"]["peak_megabytes"] < 4000
    assert strided["device"]["batch_size"] == 64 and strided["trainer"]["batch_size"] > 32


def document(**changes: Any) -> dict[str, Any]:
    device = {"peak_megabytes": 900.0, "estimated_megabytes": 1100.0, "limit_megabytes": 1200}
    trainer = {"peak_megabytes": 2500.0, "estimated_megabytes": 3900.0, "limit_megabytes": 4000}
    return {"cases": {"resnet8-224": {"device": device, "trainer": trainer, "ort_training": None, **changes}}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        (
            {"device": {"peak_megabytes": 1150.0, "estimated_megabytes": 1100.0, "limit_megabytes": 1200}},
            ["resnet8-224, a device: 1,150 MB, 1,100 were expected"],
        ),
        # Libraries' pages, of which a freshly installed one has 200 MB more in memory.
        (
            {
                "trainer": {
                    "peak_megabytes": 4100.0,
                    "files_megabytes": 400.0,
                    "estimated_megabytes": 3900.0,
                    "limit_megabytes": 4000,
                }
            },
            [],
        ),
        (
            {"trainer": {"peak_megabytes": 4100.0, "estimated_megabytes": 4500.0, "limit_megabytes": 4000}},
            ["resnet8-224, the trainer: 4,100 MB, 4,000 were expected"],
        ),
        (
            {"ort_training": {"peak_megabytes": 500.0, "estimated_megabytes": 1100.0}},
            ["resnet8-224, ort-training: estimated 1,100 MB, took 500"],
        ),
        # Where the process itself is most, whose size is another one elsewhere.
        ({"ort_training": {"peak_megabytes": 80.0, "estimated_megabytes": 170.0}}, []),
    ],
)
def test_it_complains_of_estimates_that_do_not_hold(changes: dict[str, Any], said: list[str]) -> None:
    assert Memory().failures(document(**changes)) == said


# --- gkt demo, whose run file is written before anything is exported


@pytest.mark.system
def test_a_demo_of_large_images_has_batches_and_shards_that_fit(gkt: Gkt, tmp_path: Path) -> None:
    done = gkt(
        "export", "--image-size", "224", "--engine", "portable", "--verify", "none", "--out", "artifacts"
    )
    assert done.returncode == 0, done.stderr
    said: list[str] = []

    class Display(LiveDisplay):
        def say(self, line: str) -> None:
            said.append(line)

    def fitted(given: dict[str, Any]) -> tuple[int, int, int]:
        run = DemoRun(DemoOptions(out=tmp_path), given, Display())
        config = run._fitted(build_run_config(given, defaults={"codec": "uint8"}))
        return config.batch_size, config.server_batch_size, config.shard_samples

    batch_size, server_batch_size, shard_samples = fitted({})
    assert 4 <= batch_size < 64 and 2 <= server_batch_size < 8 and shard_samples == 9
    assert len(said) == 3 and f"batch_size is {batch_size} instead of 64, as memory holds" in said
    assert fitted({"batch_size": 3, "server_batch_size": 50, "shard_samples": 64}) == (3, 50, 64)
