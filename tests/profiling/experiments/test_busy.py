"""``gkt profile busy``: what it reports and when it complains. How fast anything is, no test says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from gkt_core.config.waiting import PATIENT_THREADS
from profiling.experiments.busy import measure
from profiling.experiments.busy.options import CHOSEN, BusyOptions
from profiling.experiments.busy.report import Busy
from profiling.experiments.busy.spinning import one_busy_core
from profiling.experiments.demo.options import DemoOptions
from profiling.frame.measuring.step_time import spread_of
from tests.conftest import Gkt, until

pytest_plugins = ["tests.profiling.profile_fixtures"]

MEASURED = "profiling.experiments.busy.training"


@pytest.mark.system
def test_report(gkt_here: Gkt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {name: measure.WAYS[name] for name in (measure.AS_IT_COMES, CHOSEN)}
    monkeypatch.setattr(measure, "WAYS", ways)
    done = gkt_here("profile", "busy", *Busy.quick, "--threads", "2", "--out", "busy.json", "--json")
    # On a machine that does other things, it may well complain.
    assert done.returncode in (0, 7), done.stderr
    report = json.loads((tmp_path / "busy.json").read_text())
    assert report["schema"] == "gkt-profile-busy/1" and report["demo"] is None
    assert list(report["ways"]) == list(ways)
    for name, way in report["ways"].items():
        assert way["num_threads"] == (1 if name == measure.ONE_THREAD else 2)
        alone, beside = way["samples_per_second"], way["samples_per_second_beside_a_busy_core"]
        assert alone["median"] > 0 and beside["median"] > 0
        assert way["times_slower"]["median"] == alone["median"] / beside["median"]
    assert report["ways"][measure.AS_IT_COMES]["share_of_as_openmp_comes"]["median"] == 1


def test_each_way_has_the_environment_that_it_is_named_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this process's own environment says, which a command has set for itself."""
    for name, value in PATIENT_THREADS.items():
        monkeypatch.setenv(name, value)
    seen: list[tuple[dict[str, Any], dict[str, str | None]]] = []

    def recorded(module: str, spec: dict[str, Any], *, environment: dict[str, str | None], what: str) -> Any:
        assert module == MEASURED
        seen.append((spec, environment))
        return {"alone": 100.0 * len(seen), "beside_a_busy_core": 50.0}

    monkeypatch.setattr(measure, "measure_fresh", recorded)
    report = measure.measure_busy(BusyOptions(repeats=1, demos=0, threads=4), lambda line: None)
    environments = dict(zip(measure.WAYS, (environment for _, environment in seen), strict=True))
    assert set(environments[measure.AS_IT_COMES].values()) == {None}
    chosen = environments[CHOSEN]
    assert {name: value for name, value in chosen.items() if value is not None} == PATIENT_THREADS
    assert [spec["threads"] for spec, _ in seen] == [4, 4, 4, 4, 1]
    assert report["ways"][CHOSEN]["share_of_as_openmp_comes"]["median"] == 2
    assert report["ways"][CHOSEN]["times_slower"]["median"] == 4


@pytest.mark.parametrize(
    ("share", "slower", "demo", "said"),
    [(0.95, 2.4, 2.0, 0), (0.85, 2.4, 2.0, 1), (0.95, 2.6, 2.0, 1), (0.95, 2.4, 2.6, 1), (0.5, 9.0, 9.0, 3)],
)
def test_complains_of_what_is_lost(share: float, slower: float, demo: float, said: int) -> None:
    own = {"share_of_as_openmp_comes": spread_of([share]), "times_slower": spread_of([slower])}
    document = {"ways": {CHOSEN: own}, "demo": {"times_slower": spread_of([demo])}}
    assert len(Busy().failures(document)) == said
    assert len(Busy().failures({**document, "demo": None})) == said - (demo > 2.5)


def test_a_busy_core_is_busy_until_the_end_of_the_block() -> None:

    with one_busy_core():
        (spinning,) = psutil.Process().children()
        until(lambda: spinning.cpu_times().user > 0.2, "a core that is busy")
    assert not psutil.pid_exists(spinning.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="GCC's OpenMP prints how long it spins")
def test_a_fresh_process_is_without_what_is_taken_away() -> None:
    code = (
        "import os, sys; os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'; "
        "from profiling.frame.measuring.fresh_process import measure_fresh; "
        "environment = {'OMP_WAIT_POLICY': None, 'OMP_DISPLAY_ENV': 'VERBOSE'}; "
        "spec = {'batch_size': 2, 'image_size': 8, 'seconds': 0, 'threads': 1}; "
        f"measure_fresh('{MEASURED}', spec, what='it', environment=environment, announce=print)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    # What GCC's OpenMP does by itself, and prints when it is loaded.
    assert "GOMP_SPINCOUNT = '300000'" in done.stdout


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (8, 7), (None, 1)])
def test_a_demo_leaves_a_core_to_the_rest(
    cores: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert DemoOptions(out=Path("demo")).trainer_threads == threads
    assert DemoOptions(out=Path("demo"), server_threads=5).trainer_threads == 5
