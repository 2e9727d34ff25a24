"""The portable files: standard operators, equal bytes, PyTorch's numbers, weights made constants."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_export import export_bundle
from edge_runtime.engines.frozen_inputs import freeze_inputs
from edge_runtime.engines.portable import PortableEngine
from gkt_core.bundle.manifest import ENGINE_FILES, PREDICT, TRAIN_STEP, Bundle
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.errors import ArtifactError
from gkt_core.nn import build_edge_network
from tests.edge_export.portable.batches import batch_of, exact_loss, gradient_of
from tests.edge_export.portable.conftest import SMALL


def test_the_portable_files_are_standard_and_old_enough(digits_bundle: Bundle) -> None:
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


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes_of(attribute.g)


def test_equal_options_give_equal_bytes(small_bundle: Bundle, tmp_path: Path) -> None:
    export_bundle(SMALL, tmp_path / "again", verify="none")
    for name in ENGINE_FILES["portable"]:
        assert (tmp_path / "again" / name).read_bytes() == (small_bundle.path / name).read_bytes(), name


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(num=st.integers(1, 256), alpha=st.floats(0, 4), seed=st.integers(0, 99))
def test_every_batch_size_gives_pytorchs_loss_and_gradient(
    small_bundle: Bundle, num: int, alpha: float, seed: int
) -> None:
    batch = batch_of(num, 8, 3, seed)
    engine = PortableEngine(small_bundle)
    loss, logits = engine.train_step(*batch, alpha)
    network = build_edge_network("resnet4", 3)
    exact, expected = exact_loss(network, batch, alpha)
    assert loss == pytest.approx(exact, rel=1e-5)
    assert np.abs(logits - expected.detach().numpy()).max() < 1e-4
    gradient = gradient_of(network.get_parameter("head.fc.weight"))
    assert np.abs(engine.gradients()["head.fc.weight"] - gradient).max() < 1e-4 * max(1, alpha)


# --- eval mode, with weights that are constants


def test_eval_mode_follows_the_state_and_is_the_files(small_bundle: Bundle, tmp_path: Path) -> None:
    """The device's session with frozen weights, beside ``predict.onnx`` with weights as inputs."""
    engine = PortableEngine(small_bundle, learning_rate=1e-2)
    plain = onnxruntime_module().InferenceSession(
        str(small_bundle.path / PREDICT), providers=["CPUExecutionProvider"]
    )
    images, _, _ = batch_of(37, 8, 3)
    seen = []
    for step in range(3):
        engine.save(tmp_path / "state")
        vectors = safetensors.numpy.load_file(tmp_path / "state")
        inputs = {name: vectors[name] for name in ("parameters", "statistics")}
        expected = plain.run(["features", "logits"], {"images": images, **inputs})
        predicted = engine.predict(images)
        for ours, theirs in zip(predicted, expected, strict=True):
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == np.float32
            assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
        again = PortableEngine(small_bundle, tmp_path / "state").predict(images)
        assert [array.tobytes() for array in again] == [array.tobytes() for array in predicted]
        seen.append(predicted[1])
        engine.train_step(*batch_of(8, 8, 3, seed=step), 1.0)
    assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[1], seen[2])
    assert [array.shape for array in engine.predict(images[:0])] == [(0, 16, 8, 8), (0, 3)]


def test_frozen_inputs_are_constants_of_a_valid_model(small_bundle: Bundle) -> None:
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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 3000), place=st.integers(0, 3000), byte=st.integers(0, 255))
def test_freezing_a_damaged_model_is_a_named_error_or_none(
    small_bundle: Bundle, cut: int, place: int, byte: int
) -> None:
    model = (small_bundle.path / PREDICT).read_bytes()
    changed = bytearray(model[: len(model) - cut])
    changed[place % len(changed)] = byte
    with contextlib.suppress(ArtifactError):
        freeze_inputs(bytes(changed), {"parameters": np.zeros(3, np.float32)})
    with pytest.raises(ArtifactError, match="no whole ONNX file: it is cut short"):
        freeze_inputs(model[: len(model) - 100 - cut], {"parameters": np.zeros(3, np.float32)})
