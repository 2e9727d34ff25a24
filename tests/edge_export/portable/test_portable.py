"""The portable step: one test body over engines, networks and optimizers, and what may not go in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from edge_export import ExportOptions, export_bundle
from edge_export.portable.network import PortableNetwork
from edge_export.portable.phases import FlatStep, plan_phases
from edge_export.portable.step import initial_vectors, state_layout, train_step_model
from edge_runtime import open_backend
from edge_runtime.engines import choice
from edge_runtime.engines.frozen_inputs import freeze_inputs
from edge_runtime.engines.portable import PortableBackend
from gkt_core.bundle.manifest import ENGINE_FILES, PREDICT, TRAIN_STEP, Bundle, load_bundle
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.errors import ArtifactError, ConfigError, DatasetError, PackageConflictError
from gkt_core.nn import EdgeNetwork, build_edge_network, edge_loss
from gkt_core.nn.building import Normalise, example_images
from tests.conftest import ROOT

ENGINES = tuple(ENGINE_FILES)


def batch_of(num, size=16, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    images = example_images(num, size, seed=seed).numpy()
    return images, rng.integers(classes, size=num), rng.standard_normal((num, classes)).astype(np.float32)


@pytest.fixture(params=ENGINES)
def backend(request, digits_bundle):
    return open_backend(
        digits_bundle, checkpoint=None, num_threads=1, learning_rate=1e-3, engine=request.param
    )


# --- what both engines must do


def test_a_saved_state_goes_on_bit_for_bit(backend, digits_bundle, tmp_path):
    for step in range(3):
        backend.train_step(*batch_of(8, seed=step), 1.0)
    backend.save(tmp_path / "state")
    resumed = open_backend(
        digits_bundle,
        checkpoint=tmp_path / "state",
        num_threads=1,
        learning_rate=1e-3,
        engine=backend.name,
    )
    for step in range(3, 6):
        batch = batch_of(8, seed=step)
        loss, logits = backend.train_step(*batch, 1.0)
        again, same = resumed.train_step(*batch, 1.0)
        assert loss == again and np.array_equal(logits, same)
    ours, theirs = backend.parameters(), resumed.parameters()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_the_learning_rate_is_set_for_each_step(backend):
    before = backend.parameters()
    backend.set_learning_rate(0.0)
    backend.train_step(*batch_of(8), 1.0)
    still = backend.parameters()
    assert all(np.array_equal(before[n], still[n]) for n in before if ".running_" not in n)
    assert not np.array_equal(before["extractor.bn.running_mean"], still["extractor.bn.running_mean"])
    backend.set_learning_rate(1e-2)
    backend.train_step(*batch_of(8), 1.0)
    assert not np.array_equal(still["head.fc.weight"], backend.parameters()["head.fc.weight"])


def test_predicting_changes_nothing(backend):
    backend.train_step(*batch_of(8), 1.0)
    before = backend.parameters()
    features, logits = backend.predict(batch_of(5)[0])
    assert (features.shape, logits.shape) == ((5, 16, 16, 16), (5, 10))
    assert all(np.array_equal(before[name], value) for name, value in backend.parameters().items())


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda x, y: x.__setitem__((0, 0, 0, 0), np.nan), "images hold NaN"),
        (lambda x, y: x.__setitem__((0, 0, 0, 0), np.inf), "images hold NaN or infinity"),
        (lambda x, y: y.__setitem__(0, 10), "labels run from 0 to 10, the artifacts were made for 0 to 9"),
        (lambda x, y: y.__setitem__(0, -1), "labels run from -1 to"),
    ],
    ids=["nan", "infinity", "label 10", "label -1"],
)
def test_a_bad_batch_is_refused_and_no_state_is_lost(backend, spoil, match):
    images, labels, teacher = batch_of(8)
    labels[1] = 0
    before = backend.parameters()
    spoil(images, labels)
    with pytest.raises(DatasetError, match=match):
        backend.train_step(images, labels, teacher, 1.0)
    assert all(np.array_equal(before[name], value) for name, value in backend.parameters().items())


def test_engines_agree_on_a_curve(digits_bundle):
    """Ten steps from equal weights: as close as two float32 engines are before rounding has grown."""
    curves = []
    for engine in ENGINES:
        backend = open_backend(
            digits_bundle, checkpoint=None, num_threads=1, learning_rate=1e-3, engine=engine
        )
        curves.append([backend.train_step(*batch_of(16, seed=step), 1.0)[0] for step in range(10)])
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    assert curves[0][0] == pytest.approx(curves[1][0], rel=1e-6)


# --- the files


def test_the_portable_files_are_standard_and_old_enough(digits_bundle):
    for name in (TRAIN_STEP, PREDICT):
        model = onnx.load(digits_bundle.path / name)
        assert {entry.domain for entry in model.opset_import} == {""}
        assert all(node.domain == "" for node in nodes_of(model.graph))
        assert model.opset_import[0].version <= 18 and model.ir_version <= 8
        assert digits_bundle.manifest.onnx_versions[name] == [model.opset_import[0].version, 8]
        # In training mode ONNX Runtime writes its statistics into input buffers.
        assert not any(
            attribute.name == "training_mode"
            for node in nodes_of(model.graph)
            for attribute in node.attribute
        )
        text = (digits_bundle.path / name).read_bytes()
        assert str(Path.cwd()).encode() not in text, "a path of this machine"


def nodes_of(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes_of(attribute.g)


def test_equal_options_give_equal_bytes(digits_bundle, tmp_path):
    for name in ("one", "two"):
        export_bundle(ExportOptions(image_size=8, engines=("portable",)), tmp_path / name, verify=False)
    for name in ENGINE_FILES["portable"]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("small") / "bundle"
    export_bundle(
        ExportOptions("resnet4", image_size=8, num_classes=3, engines=("portable",)), folder, verify=False
    )
    return load_bundle(folder)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(num=st.integers(1, 256), alpha=st.floats(0, 4), seed=st.integers(0, 99))
def test_every_batch_size_gives_pytorchs_loss_and_gradient(small_bundle, num, alpha, seed):
    images, labels, teacher = batch_of(num, 8, 3, seed)
    backend = PortableBackend(small_bundle)
    loss, logits = backend.train_step(images, labels, teacher, alpha)
    network = build_edge_network("resnet4", 3).double()
    _, expected = network(torch.from_numpy(images).double())
    exact = edge_loss(expected, torch.from_numpy(labels), torch.from_numpy(teacher).double(), alpha, 3.0)
    exact.backward()
    assert loss == pytest.approx(exact.item(), rel=1e-5)
    assert np.abs(logits - expected.detach().numpy()).max() < 1e-4
    gradient = network.head.fc.weight.grad.numpy()
    assert np.abs(backend.gradients()["head.fc.weight"] - gradient).max() < 1e-4 * max(1, alpha)


# --- eval mode, with weights that are constants


def test_eval_mode_follows_the_state_and_is_the_files(small_bundle):
    """The device's session with frozen weights, beside ``predict.onnx`` with weights as inputs."""
    backend = PortableBackend(small_bundle, learning_rate=1e-2)
    plain = onnxruntime_module().InferenceSession(
        str(small_bundle.path / PREDICT), providers=["CPUExecutionProvider"]
    )
    images, _, _ = batch_of(37, 8, 3)
    seen = []
    for step in range(3):
        backend.save(small_bundle.path.parent / "state")
        vectors = safetensors.numpy.load_file(small_bundle.path.parent / "state")
        inputs = {name: vectors[name] for name in ("parameters", "statistics")}
        expected = plain.run(["features", "logits"], {"images": images, **inputs})
        found = backend.predict(images)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == np.float32
            assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
        again = PortableBackend(small_bundle, small_bundle.path.parent / "state").predict(images)
        assert [array.tobytes() for array in again] == [array.tobytes() for array in found]
        seen.append(found[1])
        backend.train_step(*batch_of(8, 8, 3, seed=step), 1.0)
    assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[1], seen[2])
    assert [array.shape for array in backend.predict(images[:0])] == [(0, 16, 8, 8), (0, 3)]


def test_frozen_inputs_are_constants_of_a_valid_model(small_bundle):
    model = (small_bundle.path / PREDICT).read_bytes()
    rng = np.random.default_rng(0)
    before = onnx.load_from_string(model)
    lengths = {info.name: info.type.tensor_type.shape.dim[0].dim_value for info in before.graph.input}
    values = {n: rng.random(lengths[n], dtype=np.float32) for n in ("parameters", "statistics")}
    frozen = onnx.load_from_string(freeze_inputs(model, values))
    onnx.checker.check_model(frozen, full_check=True)
    assert [info.name for info in frozen.graph.input] == ["images"]
    assert [info.name for info in frozen.graph.output] == ["logits", "features"]
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in frozen.graph.initializer}
    assert all(np.array_equal(stored[name], value) for name, value in values.items())
    assert frozen.graph.node == before.graph.node and frozen.opset_import == before.opset_import
    with pytest.raises(ArtifactError, match="has no input nothing; export or download"):
        freeze_inputs(model, {"nothing": np.zeros(1, np.float32)})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 3000), place=st.integers(0, 3000), byte=st.integers(0, 255))
def test_freezing_a_damaged_model_is_a_named_error_or_none(small_bundle, cut, place, byte):
    model = (small_bundle.path / PREDICT).read_bytes()
    changed = bytearray(model[: len(model) - cut])
    changed[place % len(changed)] = byte
    with contextlib.suppress(ArtifactError):
        freeze_inputs(bytes(changed), {"parameters": np.zeros(3, np.float32)})
    with pytest.raises(ArtifactError, match="no whole ONNX file: it is cut short; export or download"):
        freeze_inputs(model[: len(model) - 100 - cut], {"parameters": np.zeros(3, np.float32)})


# --- networks and optimizers


def test_a_registered_network_of_known_layers_is_differentiated():
    """Biases, strides, a 5x5 kernel: none of ours has them. Against autograd, by one step of plain SGD."""
    torch.manual_seed(0)
    extractor = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2, padding=2), nn.BatchNorm2d(6), nn.ReLU())

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(6, 8, (3, 1), stride=(2, 1), padding=(1, 0))
            self.wide = nn.Conv2d(8, 8, 1)
            self.fc = nn.Linear(8, 4)

        def forward(self, features):
            hidden = torch.nn.functional.relu(self.conv(features))
            return self.fc((hidden + self.wide(hidden)).mean(dim=(2, 3)))

    network = EdgeNetwork(extractor, Head(), Normalise((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    found = one_plain_step(network, 12, 4)
    images, labels, teacher = batch_of(6, 12, 4)
    exact = network.double()
    _, logits = exact(torch.from_numpy(images).double())
    loss = edge_loss(logits, torch.from_numpy(labels), torch.from_numpy(teacher).double(), 1.0, 3.0)
    loss.backward()
    for name, parameter in exact.named_parameters():
        assert np.abs(found[name] - parameter.grad.numpy()).max() < 1e-5, name


@pytest.mark.parametrize(
    ("kernel", "padding"),
    [((3, 3), 1), ((3, 3), 0), ((3, 3), 2), ((2, 3), (0, 1)), ((1, 3), (0, 2)), ((5, 5), 1)],
)
@pytest.mark.parametrize("width", [4, 8], ids=["few channels", "many channels"])
def test_convolutions_without_stride_are_differentiated(kernel, padding, width):
    """Kernels and paddings that change the size; as a convolution, and as a transposed one."""
    torch.manual_seed(0)
    extractor = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
    middle = nn.Sequential(nn.Conv2d(width, 6, kernel, padding=padding), nn.BatchNorm2d(6), nn.ReLU())
    plain = nn.Sequential(nn.Conv2d(6, 9, kernel, padding=padding, bias=False), nn.AdaptiveAvgPool2d(1))
    head = nn.Sequential(middle, plain, nn.Flatten(), nn.Linear(9, 4))
    network = EdgeNetwork(extractor, head, Normalise((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    found = one_plain_step(network, 12, 4)
    images, labels, teacher = batch_of(6, 12, 4)
    exact = network.double()
    _, logits = exact(torch.from_numpy(images).double())
    loss = edge_loss(logits, torch.from_numpy(labels), torch.from_numpy(teacher).double(), 1.0, 3.0)
    loss.backward()
    for name, parameter in exact.named_parameters():
        assert np.abs(found[name] - parameter.grad.numpy()).max() < 1e-5, name


def test_a_projecting_block_is_differentiated():
    """Two 1x1 convolutions with batch norm that meet in a sum become one, of unlike widths here."""
    torch.manual_seed(0)

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow = nn.Sequential(
                nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU()
            )
            self.wide = nn.Sequential(nn.Conv2d(5, 8, 1, bias=False), nn.BatchNorm2d(8))
            self.shortcut = nn.Sequential(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8))
            self.fc = nn.Linear(8, 4)

        def forward(self, features):
            both = torch.relu(self.wide(self.narrow(features)) + self.shortcut(features))
            return self.fc(both.mean(dim=(2, 3)))

    extractor = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    network = EdgeNetwork(extractor, Head(), Normalise((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    found = one_plain_step(network, 12, 4)
    images, labels, teacher = batch_of(6, 12, 4)
    exact = network.double()
    _, logits = exact(torch.from_numpy(images).double())
    loss = edge_loss(logits, torch.from_numpy(labels), torch.from_numpy(teacher).double(), 1.0, 3.0)
    loss.backward()
    for name, parameter in exact.named_parameters():
        assert np.abs(found[name] - parameter.grad.numpy()).max() < 1e-5, name


def test_a_few_images_train_with_one_thread_from_the_same_state(small_bundle):
    """A backend of two threads has two sessions: what one has learnt, the other goes on with."""
    one, two = (PortableBackend(small_bundle, num_threads=threads) for threads in (1, 2))
    for step, num in enumerate((8, 2, 8, 3)):
        batch = batch_of(num, 8, 3, step)
        expected, found = (backend.train_step(*batch, 1.0) for backend in (one, two))
        assert found[0] == pytest.approx(expected[0], rel=1e-4)
    ours, theirs = one.parameters(), two.parameters()
    assert all(np.allclose(ours[name], theirs[name], atol=1e-3) for name in ours)
    assert not np.array_equal(
        theirs["head.fc.weight"], PortableBackend(small_bundle).parameters()["head.fc.weight"]
    )


# --- a few images at a time


def resnet8_step(monkeypatch=None, *, low_memory=False):
    """The step of a ResNet-8 and its initial vectors; over the whole batch at once if given a monkeypatch."""
    network, optimizer = build_edge_network("resnet8", 10), EdgeOptimizer()
    state = {n: v.detach() for n, v in network.state_dict().items() if "num_batches" not in n}
    walked, layout = PortableNetwork(network, "resnet8", 32), state_layout(state, optimizer)
    if monkeypatch is not None:
        monkeypatch.setattr("edge_export.portable.step.in_chunks", lambda model, low_memory: model)
    model = train_step_model(
        walked, layout, optimizer, num_classes=10, temperature=3.0, low_memory=low_memory
    )
    return model, initial_vectors(state, layout)


@pytest.mark.parametrize("low_memory", [False, True], ids=["plain", "low memory"])
def test_a_few_images_at_a_time_are_the_whole_batch_at_once(low_memory, monkeypatch):
    """Chunks that fit, that do not, one chunk, one image: every output, and no row of the filling."""
    ort = onnxruntime_module()
    chunked, vectors = resnet8_step(low_memory=low_memory)
    whole, _ = resnet8_step(monkeypatch)
    sessions = [
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for model in (whole, chunked)
    ]
    names = [output.name for output in whole.graph.output]
    assert [output.name for output in chunked.graph.output] == names
    one = np.array(1.0, np.float32)
    for num in (1, 3, 4, 5, 9, 16):
        images, labels, teacher = batch_of(num, 32)
        inputs = {"images": images, "labels": labels, "server_logits": teacher, "alpha": one}
        inputs |= {"learning_rate": one} | vectors
        expected, found = (session.run(names, inputs) for session in sessions)
        for name, left, right in zip(names, expected, found, strict=True):
            assert left.shape == right.shape
            limit = 1e-5 * float(np.abs(left).max(initial=0)) + 1e-7
            # Adam's first step is the sign of the gradient, which rounding turns where there is none.
            if name != "next_parameters":
                assert np.abs(left - right).max() <= limit, (num, name)


def test_low_memory_keeps_nothing_wide(monkeypatch):
    """What decides a step's memory: values between the phases. 64 channels of 32 by 32 pixels are wide."""
    flat = FlatStep(resnet8_step(monkeypatch)[0])
    kept = {}
    for low_memory in (False, True):
        phases = plan_phases(flat, low_memory=low_memory).phases
        kept[low_memory] = [int(np.prod(flat.sample_shape(name))) for part in phases for name in part.gives]
    assert max(kept[False]) == 64 * 32 * 32
    assert max(kept[True]) == 16 * 32 * 32
    assert sum(kept[True]) < 0.5 * sum(kept[False])


def test_a_step_of_low_memory_is_another_file_that_trains(tmp_path):
    folder = tmp_path / "bundle"
    options = ExportOptions("resnet4", image_size=8, num_classes=3, engines=("portable",), low_memory=True)
    assert "portable" in export_bundle(options, folder).verification
    export_bundle(dataclasses.replace(options, low_memory=False), tmp_path / "plain", verify=False)
    assert (folder / TRAIN_STEP).read_bytes() != (tmp_path / "plain" / TRAIN_STEP).read_bytes()
    assert (folder / PREDICT).read_bytes() == (tmp_path / "plain" / PREDICT).read_bytes()
    backend = PortableBackend(load_bundle(folder))
    losses = [backend.train_step(*batch_of(8, 8, 3), 1.0)[0] for _ in range(10)]
    assert losses[-1] < losses[0]


def test_low_memory_without_the_portable_step_is_refused():
    with pytest.raises(ConfigError, match="--low-memory is for the portable step"):
        ExportOptions(engines=("ort_training",), low_memory=True)


def one_plain_step(network, size, classes):
    state = {n: v.detach().clone() for n, v in network.state_dict().items() if "num_batches" not in n}
    optimizer = EdgeOptimizer("sgd")
    walked, layout = PortableNetwork(network, "mine", size), state_layout(state, optimizer)
    model = train_step_model(walked, layout, optimizer, num_classes=classes, temperature=3.0)
    session = onnxruntime_module().InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images, labels, teacher = batch_of(6, size, classes)
    one = np.array(1.0, np.float32)
    inputs = {
        "images": images,
        "labels": labels,
        "server_logits": teacher,
        "alpha": one,
        "learning_rate": one,
    }
    (gradient,) = session.run(["gradient"], {**inputs, **initial_vectors(state, layout)})
    return layout.tensors({"parameters": gradient})


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (nn.MaxPool2d(2), "MaxPool2d"),
        (nn.Conv2d(16, 16, 3, groups=4), "groups"),
        (nn.BatchNorm2d(16, affine=False), "weights"),
        (nn.Dropout(0.5), "Dropout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_network_that_cannot_be_made_is_refused_by_name(layer, word):
    network = build_edge_network("resnet4", 3)
    network.head.blocks.insert(0, layer)
    with pytest.raises(ConfigError, match=f"network 'mine' cannot be a portable .*{word}"):
        PortableNetwork(network, "mine", 16)


OPTIMIZERS = (
    EdgeOptimizer("adam", weight_decay=1e-2),
    EdgeOptimizer("adamw", weight_decay=1e-1),
    EdgeOptimizer("sgd", weight_decay=1e-2, momentum=0.9, nesterov=True),
    EdgeOptimizer("sgd", momentum=0.9),
    EdgeOptimizer("adam", amsgrad=True, weight_decay=1e-2),
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{o.name}-{o.weight_decay}-{o.momentum}")
def test_every_optimizer_is_exact_on_every_engine_or_refused(optimizer, tmp_path):
    """The export verifies itself against PyTorch's optimizer; momentum survives a restart."""
    if optimizer.amsgrad:
        with pytest.raises(ConfigError, match="has no AMSGrad: give --engine portable"):
            ExportOptions("resnet4", image_size=8, optimizer=optimizer)
    engines = ("portable",) if optimizer.amsgrad else ENGINES
    options = ExportOptions("resnet4", image_size=8, num_classes=3, optimizer=optimizer, engines=engines)
    manifest = export_bundle(options, tmp_path / "bundle")
    assert set(manifest.verification) == set(engines)
    bundle = load_bundle(tmp_path / "bundle")
    for engine in engines:
        opening = {"num_threads": 1, "learning_rate": 5e-3, "engine": engine}
        first = open_backend(bundle, checkpoint=None, **opening)
        first.train_step(*batch_of(8, 8, 3), 1.0)
        first.save(tmp_path / engine)
        second = open_backend(bundle, checkpoint=tmp_path / engine, **opening)
        for backend in (first, second):
            backend.train_step(*batch_of(8, 8, 3, seed=1), 1.0)
        ours, theirs = first.parameters(), second.parameters()
        assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours), engine


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"name": "lamb"}, "expected one of adam, adamw, sgd"),
        ({"momentum": 0.9}, "momentum is for sgd, the optimizer is adam"),
        ({"name": "sgd", "nesterov": True}, "Nesterov momentum needs a momentum"),
        ({"name": "sgd", "amsgrad": True}, "AMSGrad is a variant of adam"),
        ({"name": "sgd", "momentum": 1.0}, "momentum is 1.0"),
        ({"weight_decay": -1.0}, "weight decay is -1.0"),
        ({"weight_decay": float("nan")}, "weight decay is nan"),
    ],
)
def test_optimizers_that_nobody_has(values, match):
    with pytest.raises(ConfigError, match=match):
        EdgeOptimizer(**values)


# --- choosing an engine


def test_the_engine_is_chosen_by_bundle_and_installation(digits_bundle, monkeypatch):
    manifest = digits_bundle.manifest
    only = {name: dataclasses.replace(manifest, engines=[name]) for name in ENGINES}
    assert choice.choose_engine(manifest) == "portable"
    assert choice.choose_engine(only["ort_training"]) == "ort_training"
    assert choice.choose_engine(manifest, "ort_training") == "ort_training"
    monkeypatch.setattr(choice, "can_train", lambda: False)
    assert choice.choose_engine(manifest) == "portable"
    with pytest.raises(ArtifactError, match="is for ort_training, installed is portable: export with"):
        choice.choose_engine(only["ort_training"])
    with pytest.raises(ArtifactError, match="wanted is ort_training"):
        choice.choose_engine(manifest, "ort_training")


def test_two_onnxruntimes_in_one_environment_are_named(tmp_path):
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
        timeout=240,
    )
    assert PackageConflictError.__name__ in done.stderr
    assert "onnxruntime 1.31.1, onnxruntime-training-cpu 1.19.2 are installed together" in done.stderr
    assert "pip uninstall onnxruntime onnxruntime-training-cpu" in done.stderr


def test_a_state_of_another_network_is_refused(small_bundle, digits_bundle, tmp_path):
    PortableBackend(small_bundle).save(tmp_path / "state")
    with pytest.raises(ArtifactError, match="of another network or optimizer"):
        PortableBackend(digits_bundle, checkpoint=tmp_path / "state")
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="cannot read the training state"):
        PortableBackend(small_bundle, checkpoint=tmp_path / "state")


# --- proof that nothing else is needed

PLAIN_RUN = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import numpy as np
from edge_runtime import open_backend
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.bundle.manifest import load_bundle
bundle = load_bundle(Path({bundle!r}))
backend = open_backend(bundle, checkpoint=None, num_threads=1, learning_rate=1e-3)
rng = np.random.default_rng(0)
images = rng.random((16, 3, 16, 16), dtype=np.float32)
labels = np.arange(16) % 10
losses = [backend.train_step(images, labels, np.zeros((16, 10), np.float32), 0.0)[0] for _ in range(20)]
features, logits = backend.predict(images)
assert not {{'torch', 'onnx'}} & set(sys.modules)
import json
predicted = [float(np.abs(features).mean()), float(np.abs(logits).mean())]
found = {{"losses": losses, "predicted": predicted, "engine": backend.name}}
print(json.dumps({{**found, "version": onnxruntime_module().__version__}}))
"""


@pytest.mark.slow
def test_training_runs_on_the_newest_plain_onnxruntime(digits_bundle, tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "onnxruntime", "numpy", "safetensors", "click"]
    subprocess.run(install, check=True, timeout=600)
    code = PLAIN_RUN.format(root=str(ROOT), bundle=str(digits_bundle.path))
    results = []
    for interpreter in (python, sys.executable):
        done = subprocess.run(
            [interpreter, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=120
        )
        results.append(json.loads(done.stdout))
    plain, training_build = results
    assert plain["engine"] == training_build["engine"] == "portable"
    assert plain["version"] != training_build["version"]
    assert plain["losses"][-1] < plain["losses"][0]
    assert plain["losses"] == pytest.approx(training_build["losses"], rel=1e-3)
    assert plain["predicted"] == pytest.approx(training_build["predicted"], rel=1e-2)
