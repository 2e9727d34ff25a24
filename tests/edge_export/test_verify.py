"""Verification finds what is wrong: artifacts are spoilt on purpose, each in one place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import numpy_helper

from edge_export import ExportOptions, export_bundle
from edge_export.reopening import network_of
from edge_export.verification import FEW_STEPS, _batch_and_steps, verify_bundle
from gkt_core.bundle.bundle_files import describe_files
from gkt_core.bundle.manifest import INITIAL_STATE, MANIFEST_NAME, TRAIN_STEP, load_bundle
from gkt_core.errors import VerificationError
from tests.conftest import Gkt


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "bundle"
    export_bundle(ExportOptions("resnet4", image_size=8, num_classes=3, engines=("portable",)), folder)
    return folder


@pytest.fixture
def spoilt(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "bundle")


def sign_again(folder: Path) -> None:
    """As a faulty exporter would: the hashes are right, the content is not."""
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest["files"] = describe_files(folder, manifest["files"])
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))


def verified(folder: Path) -> dict[str, Any]:
    bundle = load_bundle(folder)
    return verify_bundle(bundle, network_of(bundle))


def test_a_good_bundle_passes_and_says_what_was_measured(good: Path) -> None:
    recorded = load_bundle(good).manifest.verification["portable"]
    assert recorded["steps"] == 20
    checks = recorded["checks"]
    assert {"loss", "running statistics after 1 step", "parameters after 20 steps", "eval logits"} <= set(
        checks
    )
    gradients = [name for name in checks if name.startswith("gradient of ")]
    assert len(gradients) == sum(1 for _ in network_of(load_bundle(good)).parameters())
    assert all(0 <= check["distance"] <= check["limit"] for check in checks.values())


def constants_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Constants of a graph, and of those in its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from constants_of(attribute.g)


@pytest.mark.parametrize(
    ("value", "becomes", "quantity"),
    [
        # beta1, eps, the unbiased variance's "count - 1", the temperature.
        (0.9, 0.91, "after"),
        (1e-8, 1e-4, "parameters after 1 step"),
        (3.0, 3.01, "loss"),
    ],
)
def test_one_changed_constant_is_found(spoilt: Path, value: float, becomes: float, quantity: str) -> None:
    model = onnx.load(spoilt / TRAIN_STEP)
    changed = [
        tensor
        for tensor in constants_of(model.graph)
        if tensor.dims == [] and numpy_helper.to_array(tensor) == np.float32(value)
    ]
    assert changed, "the constant is in the graph"
    for tensor in changed:
        tensor.CopyFrom(numpy_helper.from_array(np.array(becomes, np.float32), tensor.name))
    onnx.save(model, spoilt / TRAIN_STEP)
    sign_again(spoilt)
    with pytest.raises(VerificationError, match=quantity) as caught:
        verified(spoilt)
    assert caught.value.exit_code == 6


def test_a_biased_running_variance_is_found(spoilt: Path) -> None:
    """Off by n / (n - 1), which is what ONNX's own operator computes."""
    model = onnx.load(spoilt / TRAIN_STEP)
    unbiased = [
        node
        for node in model.graph.node
        if node.op_type == "Div"
        and any(name.startswith("sub") for name in node.input[1:])
        and node.input[0].startswith("mul")
    ]
    counts = {node.input[0] for node in unbiased}
    changed = 0
    for node in unbiased:
        if node.input[0] in counts and any(p.output[0] == node.input[1] for p in model.graph.node):
            node.input[1] = node.input[0]
            changed += 1
    assert changed
    onnx.save(model, spoilt / TRAIN_STEP)
    sign_again(spoilt)
    with pytest.raises(VerificationError, match="running statistics after 1 step"):
        verified(spoilt)


def test_other_initial_weights_are_found(spoilt: Path) -> None:
    state = safetensors.numpy.load((spoilt / INITIAL_STATE).read_bytes())
    network = network_of(load_bundle(spoilt))
    state["parameters"] = state["parameters"].copy()
    state["parameters"][0] += 1e-6
    (spoilt / INITIAL_STATE).write_bytes(safetensors.numpy.save(state))
    sign_again(spoilt)
    with pytest.raises(VerificationError, match=r"does not begin from .*extractor\.conv\.weight"):
        verify_bundle(load_bundle(spoilt), network)


def test_its_cost_does_not_grow_with_the_image() -> None:
    def cost(image_size: int, images: int) -> int:
        batch_size, steps = _batch_and_steps(image_size, images)
        assert 2 <= batch_size <= images and FEW_STEPS <= steps <= 20
        return batch_size * steps * image_size**2

    for images in (8, 16):
        assert _batch_and_steps(32, images) == (images, 20)
        ceiling = 1.2 if images == 16 else 2.4
        assert max(cost(size, images) for size in range(8, 257, 4)) <= ceiling * cost(32, images)


@pytest.mark.system
def test_large_images_are_verified_at_their_own_size(tmp_path: Path) -> None:
    """A count of pixels that is wrong shows, few as the images are: the files themselves are run."""
    options = ExportOptions("resnet4", image_size=96, num_classes=3, engines=("portable",))
    manifest = export_bundle(options, tmp_path / "bundle", verify="quick")
    recorded = manifest.verification["portable"]
    assert (recorded["depth"], recorded["batch_size"], recorded["steps"]) == ("quick", 2, 3)
    model = onnx.load(tmp_path / "bundle" / TRAIN_STEP)
    pixels = [
        tensor
        for tensor in constants_of(model.graph)
        if tensor.dims == [] and numpy_helper.to_array(tensor) == np.float32(96 * 96)
    ]
    assert pixels
    for tensor in pixels:
        tensor.CopyFrom(numpy_helper.from_array(np.array(95 * 96, np.float32), tensor.name))
    onnx.save(model, tmp_path / "bundle" / TRAIN_STEP)
    sign_again(tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    with pytest.raises(VerificationError, match=r"running statistics after 1 step|gradient"):
        verify_bundle(bundle, network_of(bundle), depth="quick")


@pytest.mark.system
def test_an_export_says_what_it_does_and_how_far_it_was_proved(gkt: Gkt, tmp_path: Path) -> None:
    small = (
        "export",
        "--model",
        "resnet4",
        "--image-size",
        "8",
        "--num-classes",
        "3",
        "--engine",
        "portable",
    )
    done = gkt(*small, "--verify", "quick", "--out", tmp_path / "quick", "--json")
    assert json.loads(done.stdout)["verification"]["portable"]["depth"] == "quick"
    lines = done.stderr.splitlines()
    assert lines[:3] == [
        "writing the portable step of resnet4",
        "estimating memory",
        "tracing the template of the combined model, with resnet55",
    ]
    assert lines[3:] == [
        "verifying against PyTorch in float64",
        *(f"verifying: {n} of 36 steps" for n in (9, 18, 27, 36)),
    ]
    done = gkt(*small, "--verify", "none", "--out", tmp_path / "none")
    assert done.returncode == 0
    assert "not verified (--verify none): gkt verify" in done.stdout
    assert load_bundle(tmp_path / "none").manifest.verification == {}
    done = gkt("verify", tmp_path / "none", "--verify", "quick", "--json")
    assert json.loads(done.stdout)["portable"]["steps"] == 3


@pytest.mark.system
def test_the_command_repeats_it(gkt: Gkt, good: Path, tmp_path: Path) -> None:
    done = gkt("verify", good, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"portable"}
    copy = shutil.copytree(good, tmp_path / "changed")
    (copy / TRAIN_STEP).write_bytes((copy / TRAIN_STEP).read_bytes() + b"\0")
    done = gkt("verify", copy)
    assert done.returncode == 2
    assert "train_step.onnx" in done.stderr
