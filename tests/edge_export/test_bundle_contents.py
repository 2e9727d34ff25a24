"""What an export leaves: a manifest that says what is in it, .ort files, and a proof that repeats."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import nn

from edge_export import ExportOptions, export_bundle
from edge_export.reopening import network_of
from edge_export.verification import verify_bundle
from edge_runtime.engines.base import open_engine
from gkt_core.bundle.manifest import (
    COMBINED_TEMPLATE,
    DEVICE_FILES,
    EVAL_MODEL,
    INITIAL_STATE,
    MANIFEST_NAME,
    ORT_FORMAT_FILES,
    PREDICT,
    TRAIN_STEP,
    TRAINING_MODEL,
    Bundle,
    load_bundle,
)
from gkt_core.bundle.template import EXTRACTOR_PREFIX, SERVER_PREFIX, fill_template
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.errors import ArtifactError, ConfigError
from gkt_core.networks import EDGE_LAYOUTS, NARROW_NETWORKS, register_server_network
from gkt_core.nn import build_combined_network, build_edge_network
from server_app import create_app
from server_app.run_folder import RunContext
from tests.server_app.server_fixtures import TOKEN

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]

SGD = EdgeOptimizer("sgd", weight_decay=1e-3, momentum=0.9)
OPTIONS = ExportOptions("resnet4", image_size=8, num_classes=3, optimizer=SGD)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("contents") / "bundle"
    export_bundle(dataclasses.replace(OPTIONS, ort_format=True), folder, verify="none")
    return load_bundle(folder)


def test_the_manifest_says_which_tensors_go_in_and_out(exported: Bundle) -> None:
    tensors = exported.manifest.tensors
    assert set(tensors) == {TRAIN_STEP, PREDICT, TRAINING_MODEL, EVAL_MODEL, COMBINED_TEMPLATE}
    images = {"name": "images", "dtype": "float32", "shape": ["N", 3, 8, 8]}
    assert all(images in sides["inputs"] for sides in tensors.values())
    step = tensors[TRAIN_STEP]
    assert {"name": "labels", "dtype": "int64", "shape": ["N"]} in step["inputs"]
    assert {"name": "learning_rate", "dtype": "float32", "shape": []} in step["inputs"]

    def names(file: str, side: str) -> list[str]:
        return [tensor["name"] for tensor in tensors[file][side]]

    graph = onnx.load(exported.file(TRAIN_STEP)).graph
    assert names(TRAIN_STEP, "inputs") == [value.name for value in graph.input]
    assert names(TRAIN_STEP, "outputs") == [value.name for value in graph.output]
    # Weights, gradients and buffers of ONNX Runtime's graphs are its own affair.
    assert names(TRAINING_MODEL, "inputs") == ["images", "labels", "server_logits", "alpha"]
    assert names(TRAINING_MODEL, "outputs") == ["objective", "loss", "logits", "features"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[TRAIN_STEP]["inputs"][0].update(shape=["N", 3, 9, 9]), "images of train_step"),
        (lambda t: t[PREDICT]["outputs"][0].update(shape=["N", 1]), "of predict"),
        (lambda t: t[PREDICT].pop("inputs"), "no names and shapes"),
        (lambda t: t[PREDICT].update(inputs=["images"]), "no names and shapes"),
        (lambda t: t.update({PREDICT: None}), "no names and shapes"),
    ],
)
def test_graphs_of_other_images_are_refused(
    exported: Bundle, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    copy = shutil.copytree(exported.path, tmp_path / "bundle")
    values = json.loads((copy / MANIFEST_NAME).read_text())
    change(values["tensors"])
    (copy / MANIFEST_NAME).write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=message):
        load_bundle(copy)


def test_a_manifest_of_before_has_no_tensors(exported: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(exported.path, tmp_path / "bundle")
    values = json.loads((copy / MANIFEST_NAME).read_text())
    del values["tensors"]
    (copy / MANIFEST_NAME).write_text(json.dumps(values))
    assert load_bundle(copy).manifest.tensors == {}


def test_ort_files_are_the_onnx_files(exported: Bundle) -> None:
    assert set(ORT_FORMAT_FILES) <= set(exported.manifest.files)
    rng = np.random.default_rng(0)
    inputs = {
        "images": rng.random((5, 3, 8, 8), dtype=np.float32),
        "labels": rng.integers(3, size=5),
        "server_logits": rng.standard_normal((5, 3)).astype(np.float32),
        "alpha": np.array(1, np.float32),
        "learning_rate": np.array(1e-2, np.float32),
        **safetensors.numpy.load(exported.file(INITIAL_STATE).read_bytes()),
    }
    both = []
    for name in (TRAIN_STEP, TRAIN_STEP.replace(".onnx", ".ort")):
        session = onnxruntime.InferenceSession(exported.file(name), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        both.append(dict(zip(names, session.run(names, inputs), strict=True)))
    assert set(both[0]) == set(both[1])
    for name, value in both[0].items():
        assert value == pytest.approx(both[1][name], abs=1e-5), name
    assert np.abs(both[1]["next_parameters"] - inputs["parameters"]).max() > 1e-4, "it has learnt"
    for name in ORT_FORMAT_FILES:
        onnxruntime.InferenceSession(exported.file(name), providers=["CPUExecutionProvider"])


def test_a_phone_takes_ort_files_from_the_server(run: RunContext, exported: Bundle) -> None:
    run = dataclasses.replace(run, bundle=exported)
    app = create_app(run, TOKEN)
    client, headers = app.test_client(), {"Authorization": f"Bearer {TOKEN}"}
    for name in (*DEVICE_FILES, *ORT_FORMAT_FILES):
        answer = client.get(f"/v1/runs/{run.store.run_id}/artifacts/{name}", headers=headers)
        assert (answer.status_code, answer.data) == (200, exported.file(name).read_bytes()), name
        answer.close()


def test_a_run_without_ort_files_has_none(api: Any) -> None:
    answer = api.http.get(f"{api.root}/artifacts/{ORT_FORMAT_FILES[0]}")
    assert answer.status_code == 404 and "expected one of" in answer.json()["message"]


@pytest.mark.system
@pytest.mark.parametrize("engine", ["ort_training", "portable"])
def test_a_bundle_that_began_from_a_file_is_verified_again(tmp_path: Path, engine: str) -> None:
    weights = build_edge_network("resnet4", 3, seed=9).state_dict()
    safetensors.torch.save_file(weights, tmp_path / "weights.safetensors")
    options = dataclasses.replace(OPTIONS, init=tmp_path / "weights.safetensors", engines=(engine,))
    export_bundle(options, tmp_path / "bundle", verify="none")
    bundle = load_bundle(tmp_path / "bundle")
    state = network_of(bundle).state_dict()
    assert all(torch.equal(state[name], weights[name]) for name in weights if "num_batches" not in name)
    assert set(verify_bundle(bundle, network_of(bundle))) == {engine}


@pytest.mark.system
def test_a_tied_stem_is_exported_to_both_engines(tmp_path: Path) -> None:
    """Both are verified against float64, and give of flipped images what a server makes of the images'."""
    manifest = export_bundle(dataclasses.replace(OPTIONS, edge_network="resnet8-tied"), tmp_path / "tied")
    assert manifest.edge_network == "resnet8-tied"
    bundle = load_bundle(tmp_path / "tied")
    images = np.random.default_rng(1).random((3, 3, 8, 8)).astype(np.float32)
    labels, teacher = np.array([0, 1, 2]), np.zeros((3, 3), np.float32)
    for name in ("portable", "ort_training"):
        engine = open_engine(bundle, checkpoint=None, num_threads=1, learning_rate=0.1, engine=name)
        engine.train_step(images, labels, teacher, 0.0)
        parameters = engine.parameters()
        assert parameters["extractor.conv.weight"].shape == (8, 3, 3, 3)
        features, flipped = (engine.predict(each)[0] for each in (images, images[..., ::-1].copy()))
        exchanged = np.roll(features[..., ::-1], 8, axis=1)
        assert np.abs(features).max() > 0.1
        assert np.abs(exchanged - flipped).max() < 1e-5, name


@pytest.mark.parametrize("stride", [2, 4])
def test_a_strided_stem_is_exported_to_both_engines(stride: int, tmp_path: Path) -> None:
    """Both are verified against float64; features are as much smaller, and every pixel counts in them."""
    options = dataclasses.replace(OPTIONS, edge_network=f"resnet8-stride{stride}", image_size=16)
    manifest = export_bundle(options, tmp_path / "strided", verify="quick")
    assert manifest.features == [16, 16 // stride, 16 // stride]
    assert set(manifest.verification) == {"portable", "ort_training"}
    network = network_of(load_bundle(tmp_path / "strided"))
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    features, _ = network.eval()(images)
    features.sum().backward()
    assert images.grad is not None and (images.grad[0, :, :-1, :-1].abs().sum(dim=0) > 0).all()
    combined = build_combined_network(f"resnet8-stride{stride}", "resnet55", 3)
    assert combined(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    with pytest.raises(ConfigError, match="built-in"):
        register_server_network(f"resnet8-stride{stride}", nn.Identity)


@pytest.mark.parametrize("name", NARROW_NETWORKS)
def test_a_narrow_tap_is_exported_to_both_engines(name: str, tmp_path: Path) -> None:
    """Both are verified against float64; what completes it fits the tap, and the device fills it in."""
    options = dataclasses.replace(OPTIONS, edge_network=name, image_size=16)
    manifest = export_bundle(options, tmp_path / "narrow", verify="quick")
    shape = EDGE_LAYOUTS[name].feature_shape(16)
    assert manifest.feature_shape == shape
    assert manifest.server_network == name.replace("resnet8", "resnet55")
    assert set(manifest.verification) == {"portable", "ort_training"}
    assert manifest.memory is not None
    assert min(manifest.memory.batch_sizes({"batch_size": 64, "server_batch_size": 64}, 64).values()) == 64
    bundle = load_bundle(tmp_path / "narrow")
    images = np.random.default_rng(1).random((3, 3, 16, 16)).astype(np.float32)
    combined = build_combined_network(name, "resnet55", 3, seed=4).eval()
    weights = {name: value.numpy() for name, value in combined.state_dict().items() if "num_b" not in name}
    filled = bundle.file(COMBINED_TEMPLATE).read_bytes()
    for prefix in (EXTRACTOR_PREFIX, SERVER_PREFIX):
        filled = fill_template(filled, manifest.slots(), weights, prefix)
    session = onnxruntime.InferenceSession(filled, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images})
    with torch.no_grad():
        assert logits == pytest.approx(combined(torch.from_numpy(images)).numpy(), abs=1e-3)
    with pytest.raises(ConfigError, match="built-in"):
        register_server_network(manifest.server_network, nn.Identity)
