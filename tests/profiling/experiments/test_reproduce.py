"""``gkt reproduce``: what it runs, what it keeps, and what its reports say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from gkt_core.config.run_config import RunConfig, build_run_config
from gkt_core.errors import GKTError
from profiling.experiments.reproduce import paper
from profiling.experiments.reproduce.cells import Job, RunSpec
from profiling.experiments.reproduce.experiments import NAMES, experiment
from profiling.experiments.reproduce.plots import accuracy_figure
from profiling.experiments.reproduce.runs import RunFolder
from profiling.experiments.reproduce.scales import CPU, FULL, SCALES, SMALL, TINY, Scale
from profiling.experiments.reproduce.summary import CellResult, half_interval, standard_error
from profiling.experiments.simulate.command import simulate
from tests.conftest import LONGEST_SECONDS, Gkt

pytest_plugins = ["tests.profiling.profile_fixtures"]

SYNC = "fedgkt-cifar10-iid-s2e-sync-seed0"
TABLES = [name for name in NAMES if name not in ("fig4", "fig5")]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file in the format of CIFAR-10's: ten classes of coloured noise."""
    random = np.random.default_rng(0)

    def made(num: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        labels = np.arange(num) % 10
        noise = random.integers(0, 60, (num, 8, 8, 3)) + 18 * labels[:, None, None, None]
        return noise.astype(np.uint8), labels

    (x_train, y_train), (x_test, y_test) = made(300), made(60)
    path = tmp_path_factory.mktemp("images") / "cifar10.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def arguments(images: Path, out: Path, *more: str) -> list[str]:
    return [
        "reproduce", "table3", "--scale", "tiny", "--seeds", "1", "--cifar10", str(images),
        "--cifar100", "missing.npz", "--precision", "fp32", "--threads", "1", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def reproduced(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished reproduction, which was stopped in the middle of its first run and went on."""
    out = tmp_path_factory.mktemp("reproduce") / "out"
    command = [sys.executable, "-m", "gkt_core.cli", *arguments(images, out, "--jobs", "1")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        metrics = out / "work" / SYNC / "metrics.jsonl"
        deadline = time.monotonic() + LONGEST_SECONDS / 2
        while not metrics.is_file():
            assert process.poll() is None
            assert time.monotonic() < deadline, "the first run has no round"
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        assert process.wait(timeout=LONGEST_SECONDS / 2) == 130
        assert not psutil.wait_procs(children, timeout=60)[1], "it left a run behind"
    finally:
        # Ended in order if it still runs: killed, it would leave its own run behind.
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)
    assert not (out / "table3.json").exists()
    assert metrics.is_file()
    command = [sys.executable, "-m", "gkt_core.cli", *arguments(images, out)]
    subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS)
    return out


@pytest.mark.system
def test_a_stopped_reproduction_goes_on_with_the_same_numbers(
    reproduced: Path, images: Path, gkt_here: Gkt, tmp_path: Path
) -> None:
    """Its first run, which was stopped, beside the same run left alone."""
    words = RunSpec("fedgkt", "cifar10").arguments(TINY, 0, str(images))
    done = gkt_here("simulate", *words, "--precision", "fp32", "--threads", "1", "--out", "alone")
    assert done.returncode == 0, done.stderr
    run = json.loads((reproduced / "runs" / f"{SYNC}.json").read_text())
    lines = (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()
    assert run["metrics"] == [json.loads(line) for line in lines]
    result = json.loads((tmp_path / "alone" / "result.json").read_text())
    for name in ("test_accuracy", "confusion_matrix"):
        assert run["result"][name] == result[name]


@pytest.mark.system
def test_the_paper_beside_ours(reproduced: Path) -> None:
    report = json.loads((reproduced / "table3.json").read_text())
    cells = {(cell["row"], cell["column"]): cell for cell in report["cells"]}
    assert cells["synchronous", "CIFAR-10"]["paper"] == 92.97
    assert cells["asynchronous", "CINIC-10"]["paper"] == 81.43
    for mode in ("synchronous", "asynchronous"):
        cell = cells[mode, "CIFAR-10"]
        assert cell["seeds"] == [0]
        assert 0 <= cell["mean_test_accuracy"] <= 100
        assert cell["standard_deviation"] is None
        assert cell["not_run"] == ""
        assert cells[mode, "CIFAR-100"]["not_run"] == "not run (no data)"
        assert cells[mode, "CINIC-10"]["not_run"] == "not run (no data: name it with --cinic10)"
        assert cells[mode, "CINIC-10"]["mean_test_accuracy"] is None
    text = (reproduced / "table3.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| asynchronous | CIFAR-10 |"))
    assert row.split("|")[3].strip() == "92.92"
    assert re.fullmatch(r"\d+\.\d\d \(n = 1\)", row.split("|")[4].strip())
    assert "not run (no data)" in text
    assert str(reproduced) not in text
    html = (reproduced / "table3.html").read_text()
    # What was not run is counted, and folded.
    assert "<details><summary>Not run: 4 of 6 cells</summary>" in html
    pictures = (
        "table3-accuracy.png",
        "table3-confusion-fedgkt-cifar10-iid-s2e-sync.png",
        "table3-confusion-fedgkt-cifar10-iid-s2e-async.png",
        "split-cifar10-iid-3clients-seed0.png",
    )
    assert html.count("data:image/svg+xml") == len(pictures)
    assert text.count("\nMachine: ") == 1
    for name in pictures:
        assert (reproduced / name).read_bytes().startswith(b"\x89PNG")
        assert name in text


@pytest.mark.system
def test_runs_carry_what_made_them(reproduced: Path) -> None:
    run = json.loads((reproduced / "runs" / f"{SYNC}.json").read_text())
    assert run["result"]["test_accuracy"] >= 0
    assert [line["round_num"] for line in run["metrics"]] == [1, 2]
    assert set(run["class_counts"]) == {"client-000", "client-001", "client-002"}
    assert sum(sum(counts) for counts in run["class_counts"].values()) == 216
    assert run["machine"]["packages"]["torch"]
    assert run["scale"] == "tiny"


@pytest.mark.system
def test_what_is_there_is_not_run_again(
    reproduced: Path, images: Path, gkt_here: Gkt, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (reproduced / "runs").iterdir()}
    (reproduced / "table3.md").unlink()
    again = gkt_here(*arguments(images, reproduced, "--json"))
    assert again.returncode == 0, again.stderr
    assert "begins" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (reproduced / "runs").iterdir()} == before
    assert json.loads(again.stdout) == json.loads((reproduced / "table3.json").read_text())
    assert (reproduced / "table3.md").is_file()


@pytest.mark.system
def test_dry_run_names_what_is_missing(reproduced: Path, images: Path, gkt_here: Gkt) -> None:
    track = "--track", "tensorboard:logs"
    done = gkt_here(*arguments(images, reproduced, "--dry-run", "--seeds", "2", *track))
    named, command, other, _ = done.stdout.splitlines()
    # As long as the run of the other seed took.
    assert re.fullmatch(r"fedgkt-cifar10-iid-s2e-sync-seed1: not begun, \d\.\d\d hours left", named)
    assert command.strip().startswith("gkt simulate ") and " --seed 1 " in command
    # Each run is tracked by itself, under its name.
    assert " --track tensorboard:logs " in command
    assert other.startswith("fedgkt-cifar10-iid-s2e-async-seed1: not begun")
    assert "2 runs are missing: " in done.stderr
    some = gkt_here(
        *arguments(images, reproduced, "--dry-run", "--seeds", "2", "--only", "asynchronous CIFAR-10")
    )
    assert [line.split(":")[0] for line in some.stdout.splitlines()[::2]] == [
        "fedgkt-cifar10-iid-s2e-async-seed1"
    ]
    none = gkt_here(*arguments(images, reproduced, "--dry-run", "--only", "MNIST"))
    assert none.returncode == 2
    assert "table3 has no such cell" in none.stderr


@pytest.mark.system
def test_results_of_other_settings_are_refused(reproduced: Path, tmp_path: Path) -> None:
    job = Job(RunSpec("fedgkt", "cifar10"), 0)
    folder = RunFolder(tmp_path, TINY)
    assert folder.load(job) is None
    path = folder.result_path(job)
    path.parent.mkdir()
    path.write_bytes(RunFolder(reproduced, TINY).result_path(job).read_bytes())
    assert folder.load(job) is not None
    with pytest.raises(GKTError, match="a run with other settings \\(scale, settings\\)"):
        RunFolder(tmp_path, SMALL).load(job)
    path.write_text("{")
    with pytest.raises(GKTError, match="remove it, and the run is made again"):
        folder.load(job)


@pytest.mark.parametrize("name", ["fig4", "fig5"])
def test_counted_figures(name: str, gkt_here: Gkt, tmp_path: Path) -> None:
    done = gkt_here("reproduce", name, "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    bars = {bar["label"]: bar["value"] for bar in json.loads(done.stdout)["bars"]}
    if name == "fig4":
        edge = bars["FedGKT, ResNet-8"]
        assert bars["FedAvg, ResNet-56"] / edge == pytest.approx(9.07, rel=0.02)
        assert bars["FedAvg, ResNet-110"] / edge == pytest.approx(17.4, rel=0.02)
    else:
        # 65,536 bytes a feature map, both ways, 50,000 samples, 200 epochs.
        assert bars["split learning, CIFAR-10"] == pytest.approx(65_536 * 2 * 50_000 * 200 / 1e9)
        assert bars["FedGKT, CIFAR-10"] == pytest.approx((65_536 + 80) * 50_000 * 200 / 1e9)
    for ending in ("md", "html", "json", "png"):
        assert (tmp_path / "out" / f"{name}.{ending}").stat().st_size > 500


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
def test_every_run_is_one_that_simulate_takes(name: str, scale: Scale) -> None:
    """Arguments are parsed by the command itself, and make a valid config."""
    cells = experiment(name, scale).cells
    names = {cell.spec.name(1) for cell in cells}
    assert len(names) == len({cell.spec for cell in cells})
    for cell in cells:
        words = [*cell.spec.arguments(scale, 1, "source"), "--out", "out"]
        context = simulate.make_context("simulate", words)
        fields = {
            key: context.params[key] for key in RunConfig().to_dict() if context.params.get(key) is not None
        }
        config = build_run_config(fields, defaults={})
        assert config.num_clients == (cell.spec.num_clients or scale.num_clients)
        assert config.seed == 1


def test_the_papers_settings_and_numbers() -> None:
    cells = {(cell.row, cell.column): cell for cell in experiment("table1", FULL).cells}
    cell = cells["FedGKT, ResNet-56 (ResNet-8 on devices)", "CIFAR-10 IID"]
    assert cell.paper == 92.97
    words = " ".join(cell.spec.arguments(FULL, 0, "cifar10"))
    wanted = ["--clients 16", "--rounds 200", "--server-epochs 20", "--batch-size 256", "--direction s2e"]
    wanted += ["--edge-weight-decay 0.0001", "--edge-amsgrad"]
    for expected in wanted:
        assert expected in words
    skewed = cells["FedGKT, ResNet-56 (ResNet-8 on devices)", "CIFAR-100 non-IID"]
    words = " ".join(skewed.spec.arguments(FULL, 0, "cifar100"))
    assert "--direction both" in words
    assert "--server-optimizer sgd" in words
    assert [cell.paper for cell in experiment("table5", FULL).cells] == ["not available"] * 3
    assert len(paper.TABLE1) == 33


def test_a_networks_own_settings_are_of_its_central_runs_alone() -> None:
    """ResNet-8 by itself learns best from another learning rate than the large networks do (ADR 17)."""
    rates = {
        cell.row: float(words[words.index("--server-lr") + 1])
        for cell in experiment("table1", SMALL).cells
        for words in [cell.spec.arguments(SMALL, 0, "cifar10")]
    }
    assert rates.pop("Centralised, ResNet-8") == 1e-2
    assert set(rates.values()) == {3e-3}


def test_spread_of_seeds() -> None:
    cell = experiment("table5", SMALL).cells[0]
    runs = {
        seed: {
            "result": {"test_accuracy": accuracy, "validation_accuracy": 0.5, "upload_bytes": 10,
                       "download_bytes": 1, "config": {"precision": "fp32"}},
            "training_seconds": 60.0,
        }
        for seed, accuracy in ((0, 0.5), (1, 0.54))
    }  # fmt: skip
    spread = CellResult(cell, runs, "").to_dict()
    assert spread["mean_test_accuracy"] == pytest.approx(52)
    assert spread["standard_deviation"] == pytest.approx(2.8284, abs=1e-3)
    assert spread["standard_error"] == pytest.approx(2)
    # Of two values, Student's t is 12.7: a difference of four points says next to nothing.
    assert spread["half_interval_95"] == pytest.approx(2 * 12.706, abs=1e-2)
    assert standard_error([1.0]) is half_interval([1.0]) is None


def test_curves_by_rounds_bytes_and_hours() -> None:
    """What sends nothing has no line by bytes; rounds of older runs took the same time each."""

    def result(row: str, sent: int, **more: Any) -> CellResult:
        cells = {cell.row[:2]: cell for cell in experiment("cifar10", CPU).cells}
        line = {"validation_accuracy": 0.5, "upload_bytes": sent, "download_bytes": sent}
        return CellResult(cells[row], {0: {"metrics": [line, line], "training_seconds": 7200.0, **more}}, "")

    shown = [result("A.", 1_000_000, round_seconds=[1800.0, 5400.0]), result("E.", 0)]
    figure = accuracy_figure(shown, "title")
    assert figure is not None and accuracy_figure([], "title") is None
    by_round, by_bytes, by_hours = (
        [np.asarray(line.get_xdata()).tolist() for line in axes.get_lines()] for axes in figure.axes
    )
    assert by_round == [[1, 2], [1, 2]]
    assert by_bytes == [[2, 4]]
    assert by_hours == [[0.5, 2], [1, 2]]


def test_a_row_is_kept_under_what_makes_it_differ() -> None:
    rows = {cell.row[:2]: cell.spec for cell in experiment("cifar10", CPU).cells}
    assert "settings" not in rows["A."].to_dict() and rows["A."].to_dict()["edge_network"] == "resnet8-tied"
    assert rows["B."].to_dict()["settings"] == {"uploads": "rounds=1"}
    assert rows["B."].stem == rows["A."].stem + "-one-upload"
    assert "1e-12" in rows["C."].arguments(CPU, 0, "x")
