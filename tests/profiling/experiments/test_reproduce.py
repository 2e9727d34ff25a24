"""``gkt reproduce``: what it runs, what it keeps, and what its reports say."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gkt_core.config.run_config import RunConfig
from gkt_core.config.run_options import build_run_config
from gkt_core.errors import GKTError
from profiling.experiments.reproduce import paper
from profiling.experiments.reproduce.experiments import NAMES, RunSpec, experiment
from profiling.experiments.reproduce.runs import Job, RunFolder
from profiling.experiments.reproduce.scales import FULL, SCALES, SMALL, TINY, Scale
from profiling.experiments.reproduce.summary import CellResult, standard_error
from profiling.experiments.simulate.command import simulate
from tests.conftest import LONGEST_SECONDS, Gkt

TABLES = [name for name in NAMES if name not in ("fig4", "fig5")]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file in the format of CIFAR-10's: ten classes of coloured noise."""
    generator = np.random.default_rng(0)
    labels = {"train": np.arange(300) % 10, "test": np.arange(60) % 10}
    arrays = {}
    for split, classes in labels.items():
        noise = generator.integers(0, 60, (len(classes), 8, 8, 3))
        arrays[f"x_{split}"] = (noise + 18 * classes[:, None, None, None]).astype(np.uint8)
        arrays[f"y_{split}"] = classes
    path = tmp_path_factory.mktemp("images") / "cifar10.npz"
    np.savez(path, **arrays)
    return path


def arguments(images: Path, out: Path, *more: str) -> list[str]:
    return [
        "reproduce", "table3", "--scale", "tiny", "--seeds", "1", "--cifar10", str(images),
        "--cifar100", "missing.npz", "--precision", "fp32", "--threads", "1", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def reproduced(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reproduce") / "out"
    command = [sys.executable, "-m", "gkt_core.cli", *arguments(images, out)]
    subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS)
    return out


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


def test_runs_carry_what_made_them(reproduced: Path) -> None:
    run = json.loads((reproduced / "runs" / "fedgkt-cifar10-iid-s2e-sync-seed0.json").read_text())
    assert run["result"]["test_accuracy"] >= 0
    assert [line["round_num"] for line in run["metrics"]] == [1, 2]
    assert set(run["class_counts"]) == {"client-000", "client-001", "client-002"}
    assert sum(sum(counts) for counts in run["class_counts"].values()) == 216
    assert run["machine"]["packages"]["torch"]
    assert run["scale"] == "tiny"


def test_what_is_there_is_not_run_again(reproduced: Path, images: Path, gkt: Gkt, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (reproduced / "runs").iterdir()}
    (reproduced / "table3.md").unlink()
    again = gkt(*arguments(images, reproduced, "--json"))
    assert again.returncode == 0, again.stderr
    assert "begins" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (reproduced / "runs").iterdir()} == before
    assert json.loads(again.stdout) == json.loads((reproduced / "table3.json").read_text())
    assert (reproduced / "table3.md").is_file()


def test_dry_run_names_what_is_missing(reproduced: Path, images: Path, gkt: Gkt) -> None:
    done = gkt(*arguments(images, reproduced, "--dry-run", "--seeds", "2"))
    assert done.stdout.split() == [
        "fedgkt-cifar10-iid-s2e-sync-seed1",
        "fedgkt-cifar10-iid-s2e-async-seed1",
    ]
    some = gkt(*arguments(images, reproduced, "--dry-run", "--seeds", "2", "--only", "asynchronous CIFAR-10"))
    assert some.stdout.split() == ["fedgkt-cifar10-iid-s2e-async-seed1"]
    none = gkt(*arguments(images, reproduced, "--dry-run", "--only", "MNIST"))
    assert none.returncode == 2
    assert "table3 has no such cell" in none.stderr


def test_a_killed_reproduction_goes_on(reproduced: Path, images: Path, gkt: Gkt, tmp_path: Path) -> None:
    """Stopped in the middle of a run: the same command ends with the same accuracies."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "gkt_core.cli", *arguments(images, out, "--jobs", "1")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = out / "work" / "fedgkt-cifar10-iid-s2e-sync-seed0" / "metrics.jsonl"
    deadline = time.monotonic() + LONGEST_SECONDS / 2
    while not metrics.is_file() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=LONGEST_SECONDS / 2) == 130
    assert not (out / "table3.json").exists()
    again = gkt(*arguments(images, out))
    assert again.returncode == 0, again.stderr
    cells = [json.loads((folder / "table3.json").read_text())["cells"] for folder in (out, reproduced)]
    found, expected = ([cell["test_accuracies"] for cell in each] for each in cells)
    assert found == expected


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
def test_counted_figures(name: str, gkt: Gkt, tmp_path: Path) -> None:
    done = gkt("reproduce", name, "--out", "out", "--json")
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
    found = CellResult(cell, runs, "").to_dict()
    assert found["mean_test_accuracy"] == pytest.approx(52)
    assert found["standard_deviation"] == pytest.approx(2.8284, abs=1e-3)
    assert found["standard_error"] == pytest.approx(2)
    assert standard_error([1.0]) is None
