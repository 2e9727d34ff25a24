"""Nothing but a plain ONNX Runtime is needed, and two of them are one too many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gkt_core.bundle.manifest import Bundle
from gkt_core.errors import PackageConflictError
from tests.conftest import LONGEST_SECONDS, ROOT

PLAIN_RUN = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import numpy as np
from edge_runtime import open_engine
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.bundle.manifest import load_bundle
bundle = load_bundle(Path({bundle!r}))
engine = open_engine(bundle, checkpoint=None, num_threads=1, learning_rate=1e-3)
rng = np.random.default_rng(0)
images = rng.random((16, 3, 16, 16), dtype=np.float32)
labels = np.arange(16) % 10
losses = [engine.train_step(images, labels, np.zeros((16, 10), np.float32), 0.0)[0] for _ in range(20)]
features, logits = engine.predict(images)
assert not {{'torch', 'onnx'}} & set(sys.modules)
import json
predicted = [float(np.abs(features).mean()), float(np.abs(logits).mean())]
results = {{"losses": losses, "predicted": predicted, "engine": engine.name}}
print(json.dumps({{**results, "version": onnxruntime_module().__version__}}))
"""


@pytest.mark.slow
def test_training_runs_on_the_newest_plain_onnxruntime(digits_bundle: Bundle, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    packages = ["onnxruntime", "numpy", "safetensors", "click"]
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *packages], check=True, timeout=LONGEST_SECONDS
    )
    code = PLAIN_RUN.format(root=str(ROOT), bundle=str(digits_bundle.path))
    results = []
    for interpreter in (python, sys.executable):
        done = subprocess.run(
            [interpreter, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            timeout=LONGEST_SECONDS,
        )
        results.append(json.loads(done.stdout))
    plain, training_build = results
    assert plain["engine"] == training_build["engine"] == "portable"
    assert plain["version"] != training_build["version"]
    assert plain["losses"][-1] < plain["losses"][0]
    assert plain["losses"] == pytest.approx(training_build["losses"], rel=1e-3)
    assert plain["predicted"] == pytest.approx(training_build["predicted"], rel=1e-2)


def test_two_onnxruntimes_in_one_environment_are_named(tmp_path: Path) -> None:
    """Real metadata of two distributions on the path, as pip leaves them."""
    for name, version in (("onnxruntime", "1.31.1"), ("onnxruntime_training_cpu", "1.19.2")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        (folder / "METADATA").write_text(metadata)
    code = "from edge_runtime.engines.choice import installed_engines; installed_engines()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )
    assert PackageConflictError.__name__ in done.stderr
    assert "onnxruntime 1.31.1, onnxruntime-training-cpu 1.19.2 are installed together" in done.stderr
    assert "pip uninstall onnxruntime onnxruntime-training-cpu" in done.stderr
