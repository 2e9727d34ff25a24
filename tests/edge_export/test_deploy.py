"""Deployed files are the trained model: fp32 exactly, int8 nearly, the halves put together again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from gkt_core.bundle.manifest import COMBINED_TEMPLATE, Bundle
from gkt_core.bundle.template import fill_template
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.private_data import load_private_data, load_test_data
from gkt_core.nn import CombinedNetwork, build_edge_network, build_server_network
from tests.conftest import LONGEST_SECONDS, Gkt


@pytest.fixture(scope="module")
def model(digits_bundle: Bundle, digits_split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A combined model that was trained a little: int8 of random logits would prove nothing."""
    manifest = digits_bundle.manifest
    mean, std = tuple(manifest.pixel_mean), tuple(manifest.pixel_std)
    edge = build_edge_network("resnet8", 10, pixel_mean=mean, pixel_std=std)
    network = CombinedNetwork(edge.extractor, build_server_network("resnet55", 10), edge.normalise)
    data = load_private_data(digits_split / "clients" / "client-000.npz").train
    images, labels = torch.from_numpy(to_float_nchw(data.images)), torch.from_numpy(data.labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.3  # so few steps would leave running statistics behind
    for step in range(40):
        rows = torch.arange(step * 32, step * 32 + 32) % len(labels)
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(network(images[rows]), labels[rows]))
        optimizer.step()
    tensors = {n: v.numpy() for n, v in network.state_dict().items() if "num_batches" not in n}
    template = (digits_bundle.path / COMBINED_TEMPLATE).read_bytes()
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    half = fill_template(template, manifest.slots(), tensors, "server.")
    path.write_bytes(fill_template(half, manifest.slots(), tensors, "extractor."))
    return path


def run(path: Path, **inputs: NDArray[np.float32]) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, inputs)
    return output


def named_classes(path: Path) -> Any:
    """As a program that knows nothing of gkt reads them."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return json.loads(session.get_modelmeta().custom_metadata_map["class_names"])


@pytest.mark.system
def test_fp32_int8_and_halves(gkt: Gkt, model: Path, digits_split: Path, tmp_path: Path) -> None:
    data, test_file = digits_split / "clients" / "client-000.npz", digits_split / "test.npz"
    out = tmp_path / "deployed"
    done = gkt(
        "deploy", "--model", model, "--data", data, "--test", test_file, "--out", out, "--split", "--json"
    )
    assert done.returncode == 0, done.stderr
    files = {each["file"]: each for each in json.loads(done.stdout)["files"]}
    assert set(files) == {path.name for path in out.iterdir()}
    fp32, int8 = files["model_fp32.onnx"], files["model_int8.onnx"]
    assert int8["num_bytes"] < 0.5 * fp32["num_bytes"]
    assert fp32["latency_ms"] > 0 and int8["latency_ms"] > 0
    test = load_test_data(test_file)
    images = to_float_nchw(test.images)
    logits = run(model, images=images)
    assert fp32["accuracy"] == np.mean(logits.argmax(axis=1) == test.labels)
    assert fp32["accuracy"] > 0.3, "it has learnt something that int8 could lose"
    assert int8["accuracy"] > fp32["accuracy"] - 0.1
    assert np.abs(run(out / "model_fp32.onnx", images=images) - logits).max() < 1e-3
    assert not any(n.op_type == "BatchNormalization" for n in onnx.load(out / "model_fp32.onnx").graph.node)
    # What each file says of its classes is what the trained model says.
    digits = [str(digit) for digit in range(10)]
    assert {name: named_classes(out / name) for name in files} == dict.fromkeys(files, digits)
    features = run(out / "extractor.onnx", images=images)
    assert features.shape == (len(test), 16, 16, 16) and features.min() == 0
    assert np.array_equal(run(out / "server.onnx", features=features), logits)
    weights = {weight.name for weight in onnx.load(out / "extractor.onnx").graph.initializer}
    assert any(name.startswith("extractor.") for name in weights)
    assert not any(name.startswith("server.") for name in weights)


def test_deploying_needs_no_torch() -> None:
    """It would take seconds, and torch's warnings would stand on stderr."""
    code = (
        "import sys; from edge_export import deployment; import edge_export.cli.deploy;"
        "assert callable(deployment.quantiser().quantize_static); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_model_and_nothing_is_written(gkt: Gkt, digits_split: Path, tmp_path: Path) -> None:
    data, test_file = digits_split / "clients" / "client-000.npz", digits_split / "test.npz"
    out = tmp_path / "deployed"
    done = gkt("deploy", "--model", data, "--data", data, "--test", test_file, "--out", out)
    assert done.returncode == 2
    assert "is a device's private data, which --data takes, expected a combined model" in done.stderr
    assert not out.exists()
