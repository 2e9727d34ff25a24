"""A device in a process where torch and onnx cannot be imported: one real round against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gkt_core.bundle.manifest import Bundle
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from tests.conftest import LONGEST_SECONDS

FORBIDDEN = ("torch", "torchvision", "onnx", "onnxscript", "sklearn", "matplotlib", "flask", "sqlalchemy")

# The blocker stands before everything else that can import, so that even a try/except import is noticed.
ISOLATED = f"""
import sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    tried = []
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FORBIDDEN!r}:
            self.tried.append(name)
            raise ModuleNotFoundError(f"{{name}} is not on a device", name=name)

sys.meta_path.insert(0, Blocker())
from gkt_core.cli import main
try:
    main()
finally:
    found = [name for name in {FORBIDDEN!r} if name in sys.modules]
    print("imported:", found, "tried:", Blocker.tried, file=sys.stderr)
"""


def isolated(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ISOLATED, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


@pytest.mark.system
def test_one_real_round_without_torch_and_onnx(
    digits_bundle: Bundle, digits_split: Path, tmp_path: Path
) -> None:
    run_dir, state_dir = tmp_path / "run", tmp_path / "device"
    data = digits_split / "clients" / "client-000.npz"
    command = [sys.executable, "-m", "gkt_core.cli", "serve", "--artifacts", str(digits_bundle.path)]
    command += ["--data-dir", str(run_dir), "--port", "0", "--poll-seconds", "0.1", "--clients", "1"]
    command += ["--rounds", "1", "--server-epochs", "1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        info_path = run_dir / "server.json"
        deadline = time.monotonic() + LONGEST_SECONDS / 2
        while not info_path.is_file() and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        connection = ("--join", run_dir / "join", "--data", data)

        dry = ("--dry-run", "--engine", "ort-training", "--json")
        shown = isolated("edge", "run", *connection, *dry, cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        plan = json.loads(shown.stdout)
        assert plan["engine"] == "ort_training"
        assert not state_dir.exists()

        done = isolated("edge", "run", *connection, "--state-dir", state_dir, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "imported: [] tried: []" in done.stderr
        result = json.loads(done.stdout)
    finally:
        server.terminate()
        server.wait(timeout=LONGEST_SECONDS)
    # What the dry run announced is what was sent (its estimate is scaled from one shard).
    assert plan["num_train_samples"] + plan["num_validation_samples"] == 360
    assert result["upload_bytes"] == pytest.approx(plan["round_bytes"], rel=0.1)
    model = state_dir / "model.onnx"
    assert Path(result["model"]) == model
    session = onnxruntime_module().InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": np.zeros((2, 3, 16, 16), np.float32)})
    assert logits.shape == (2, 10)
    assert np.isfinite(logits).all()

    measured = isolated(
        "edge", "evaluate", "--model", model, "--data", digits_split / "test.npz", "--json", cwd=tmp_path
    )
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["num_examples"] == 360


def test_the_training_step_needs_neither(digits_bundle: Bundle, digits_split: Path, tmp_path: Path) -> None:
    data = digits_split / "clients" / "client-000.npz"
    done = isolated(
        "edge", "train-alone", "--artifacts", digits_bundle.path, "--data", data,
        "--test", digits_split / "test.npz", "--rounds", "1", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "imported: [] tried: []" in done.stderr
    assert 0 <= json.loads(done.stdout)["accuracy"] <= 1


def test_the_blocker_blocks(tmp_path: Path) -> None:
    """The test above can fail: exporting in the isolated process does."""
    done = isolated("export", "--out", tmp_path / "bundle", cwd=tmp_path)
    assert done.returncode == 2
    assert "the module onnx is not installed" in done.stderr
    assert "gkt-edge[export]" in done.stderr


@pytest.mark.system
def test_onnxruntime_keeps_working_beside_its_real_training_package() -> None:
    """The stand-in module goes away: an exporter in the same process finds the real package."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from edge_runtime.engines.ort_api import training_api\n"
        "api = training_api()\n"
        "import sys; assert 'torch' not in sys.modules\n"
        "from onnxruntime.training import artifacts\n"
        "assert artifacts.generate_artifacts and api.Module\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LONGEST_SECONDS, env={**os.environ})
