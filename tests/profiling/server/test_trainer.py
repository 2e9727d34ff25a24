"""``gkt profile trainer``: what it reports. How fast anything is, no test says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gkt_core.errors import ConfigError
from gkt_core.rounds.feature_source import ShardSource
from profiling.server.trainer.measure import measure_trainer
from profiling.server.trainer.options import TrainerOptions
from profiling.server.trainer.ready_run import RunSize, make_ready_run
from server_app.rounds.state import Phase
from tests.conftest import Gkt

pytest_plugins = ["tests.server_app.server_fixtures"]


@pytest.fixture
def torch_as_before() -> Iterator[None]:
    """A measurement sets threads and determinism of its process."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.system
def test_speed(torch_as_before: None) -> None:
    said: list[str] = []
    options = TrainerOptions(16, 2, 1, 8, image_size=8, repeats=2, memory_examples=0)
    report = measure_trainer(options, said.append)
    assert report["memory"] is None
    for rate in (*report["samples_per_second"].values(), report["ratio"]):
        assert 0 < rate["lowest"] <= rate["median"] <= rate["highest"]
        assert rate["n"] == 2
    assert said[-2:] == ["turn 1 of 2", "turn 2 of 2"]


@pytest.mark.slow
def test_report(gkt: Gkt, tmp_path: Path) -> None:
    done = gkt(
        "profile", "trainer", "--examples", "16", "--clients", "2", "--epochs", "1", "--image-size", "8",
        "--batch-size", "8", "--repeats", "2", "--memory-examples", "16", "--out", "trainer.json", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "trainer.json").read_text())
    assert report["schema"] == "gkt-profile-trainer/1"
    assert set(report["samples_per_second"]) == {"trainer", "bare_loop"}
    for rate in (*report["samples_per_second"].values(), report["ratio"]):
        assert 0 < rate["lowest"] <= rate["median"] <= rate["highest"]
        assert rate["n"] == 2
    small, large = report["memory"]["small"], report["memory"]["large"]
    assert large["num_clients"] == 8 * small["num_clients"]
    assert large["features_bytes"] == 8 * small["features_bytes"] == 8 * 16 * 4 * 16 * 8 * 8
    for run in (small, large):
        assert 0 < run["anonymous_bytes"] <= run["resident_bytes"]
    assert report["machine"]["packages"]["torch"]


def test_a_ready_run_is_what_devices_would_have_sent(server_bundle: Path, tmp_path: Path) -> None:
    run = make_ready_run(tmp_path / "run", server_bundle, RunSize(3, 300, 1, 16, "uint8"))
    assert run.store.state().phase is Phase.READY
    files = [(each.key, run.blobs.local_path(each.blob)) for each in run.store.shards(1)]
    train = [(key, path) for key, path in files if key.split == "train"]
    # Every shard passes the checks of its file, and no sample is there twice.
    assert len(ShardSource.from_files(train, run.shard_spec)) == 900
    assert len(train) > 3
    run.store.close()


@pytest.mark.parametrize(
    "options", [{"repeats": 0}, {"threads": 0}, {"num_examples": 7}, {"memory_examples": 127}]
)
def test_wrong_options(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        TrainerOptions(**options)  # type: ignore[arg-type] # one of them is the codec's name
