"""The portable step in another language: 20 steps in Node end where Python's end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.engines.portable import PortableEngine
from gkt_core.bundle.manifest import Bundle
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.private_data import load_private_data
from tests.conftest import LONGEST_SECONDS, ROOT

SCRIPT = ROOT / "docs" / "examples" / "train_step.cjs"
STEPS, BATCH = 20, 16


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node and npm")
def test_twenty_steps_in_node_agree_with_python(
    digits_bundle: Bundle, digits_split: Path, tmp_path: Path
) -> None:
    subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "onnxruntime-node@1.30.0"],
        cwd=tmp_path,
        env={**os.environ, "ONNXRUNTIME_NODE_INSTALL_CUDA": "skip"},
        check=True,
        capture_output=True,
        timeout=LONGEST_SECONDS,
    )
    shutil.copy(SCRIPT, tmp_path)
    batches = tmp_path / "batches"
    batches.mkdir()
    engine, losses = train_in_python(digits_bundle, digits_split, batches)
    out = tmp_path / "out"
    done = subprocess.run(
        ["node", SCRIPT.name, digits_bundle.path, batches, out],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    check_same(digits_bundle, engine, out, losses, json.loads((out / "losses.json").read_text()))


def train_in_python(bundle: Bundle, split: Path, batches: Path) -> tuple[PortableEngine, list[float]]:
    """Train on batches that are written for another language as well; the trained engine and the losses."""
    data = load_private_data(split / "clients" / "client-000.npz").train
    rng = np.random.default_rng(0)
    engine = PortableEngine(bundle)
    listed, losses = [], []
    for step in range(STEPS):
        rows = rng.permutation(len(data))[:BATCH]
        images, labels = to_float_nchw(data.images[rows]), data.labels[rows].astype("<i8")
        teacher = rng.standard_normal((BATCH, 10)).astype("<f4")
        alpha, learning_rate = float(step > 5), 1e-3 / (1 + step)
        (batches / f"{step}.images").write_bytes(images.tobytes())
        (batches / f"{step}.labels").write_bytes(labels.tobytes())
        for name, value in (("alpha", alpha), ("learning_rate", learning_rate)):
            (batches / f"{step}.{name}").write_bytes(np.array(value, "<f4").tobytes())
        (batches / f"{step}.server_logits").write_bytes(teacher.tobytes())
        listed.append({"num": BATCH, "alpha": alpha, "learning_rate": learning_rate})
        engine.set_learning_rate(learning_rate)
        losses.append(engine.train_step(images, labels, teacher, alpha)[0])
    (batches / "batches.json").write_text(json.dumps(listed))
    return engine, losses


def check_same(
    bundle: Bundle, engine: PortableEngine, out: Path, expected_losses: list[float], losses: list[float]
) -> None:
    """What another language ended with is what Python ended with."""
    assert losses == pytest.approx(expected_losses, rel=1e-4)
    vectors = {name: np.fromfile(out / name, np.float32) for name in ("parameters", "statistics")}
    found, expected = bundle.manifest.portable_layout().tensors(vectors), engine.parameters()
    assert np.fromfile(out / "step", np.int64).tolist() == [STEPS]
    apart = sum(float(((found[name] - expected[name]) ** 2).sum()) for name in expected)
    size = sum(float((expected[name] ** 2).sum()) for name in expected)
    # Two versions of ONNX Runtime: rounding differs, and grows from step to step.
    assert (apart / size) ** 0.5 < 1e-3
