"""ONNX files of others: everything that a device would not want is refused by name, and exports pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gkt_core.bundle.manifest import ENGINE_FILES, EVAL_MODEL, PREDICT, Bundle
from gkt_core.errors import UnsafeModelError
from gkt_core.onnx_files import judging
from gkt_core.onnx_files.judging import check_computed, check_model, check_model_file
from gkt_core.onnx_files.operators import DEPLOYED, OF_FILES, STANDARD, TRAINING
from gkt_core.onnx_files.reading import read_model

IMAGES = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])
FEATURES = helper.make_tensor_value_info("features", TensorProto.FLOAT, None)
WEIGHT = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "weight")


def model(*nodes: onnx.NodeProto, tensors: tuple[onnx.TensorProto, ...] = (WEIGHT,)) -> onnx.ModelProto:
    chosen = nodes or (helper.make_node("Conv", ["images", "weight"], ["features"]),)
    graph = helper.make_graph(chosen, "graph", [IMAGES], [FEATURES], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def refusal(data: bytes, operators: object = STANDARD) -> str:
    with pytest.raises(UnsafeModelError) as caught:
        check_model(data, "predict.onnx", operators)  # type: ignore[arg-type] # a mapping, as all of them
    assert str(caught.value).startswith("predict.onnx is not opened: ") and caught.value.exit_code == 2
    return str(caught.value)


def test_every_exported_file_passes(digits_bundle: Bundle) -> None:
    names = [name for name in digits_bundle.manifest.files if name.endswith(".onnx")]
    assert {name for files in ENGINE_FILES.values() for name in files if name.endswith(".onnx")} <= {*names}
    for name in names:
        computes = "features" if name in (PREDICT, EVAL_MODEL) else ""
        path = digits_bundle.file(name)
        data = check_model_file(path, OF_FILES.get(name, STANDARD), computes=computes)
        assert data == path.read_bytes()
        graph = onnx.load(path).graph
        read = read_model(data).graph
        assert [node.operator for node in read.nodes] == [node.op_type for node in graph.node]
        assert list(read.inputs) == [value.name for value in graph.input]
        assert read.tensors == {tensor.name for tensor in graph.initializer}


# --- what leads out of the file


def external(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def located(tensor: onnx.TensorProto) -> None:
    tensor.data_location = TensorProto.EXTERNAL


@pytest.mark.parametrize("change", [external, located])
def test_external_data(change: Callable[[onnx.TensorProto], None]) -> None:
    hostile = model()
    change(hostile.graph.initializer[0])
    assert "of this machine" in refusal(hostile.SerializeToString())


def test_external_data_wherever_a_tensor_may_be() -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1])
    external(tensor)
    constant = helper.make_node("Constant", [], ["features"], value=tensor)
    assert "of this machine" in refusal(model(constant).SerializeToString())
    body = helper.make_graph([constant], "body", [], [FEATURES])
    scan = helper.make_node("Scan", ["images"], ["features"], body=body, num_scan_inputs=1)
    assert "of this machine" in refusal(model(scan).SerializeToString())


def test_a_number_that_others_cut_to_32_bits() -> None:
    """The place of the data as 2^32 + 1, which Google's readers take for 1: external."""
    tensor = WEIGHT.SerializeToString() + bytes([14 << 3, 0x81, 0x80, 0x80, 0x80, 0x10])
    assert onnx.TensorProto.FromString(tensor).data_location == TensorProto.EXTERNAL
    graph = model().graph
    del graph.initializer[:]
    hostile = model()
    hostile.graph.CopyFrom(graph)
    inner = graph.SerializeToString() + b"\x2a" + bytes([len(tensor)]) + tensor
    hostile.ClearField("graph")
    data = hostile.SerializeToString() + b"\x3a" + varint(len(inner)) + inner
    assert onnx.load_from_string(data).graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert "another file" in refusal(data)


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def test_a_file_that_is_two_formats_at_once() -> None:
    """ONNX Runtime takes bytes with ORTM at the fourth for a format of its own, which nobody looked at."""
    hostile = model()
    hostile.ClearField("producer_name")
    rest = hostile.SerializeToString()
    data = b"\x12\x06" + b"ABORTM" + rest
    assert onnx.load_from_string(data).producer_name == "ABORTM" and data[4:8] == b"ORTM"
    assert "own format" in refusal(data)


@pytest.mark.parametrize(
    ("domain", "operator"),
    [
        ("", "Loop"), ("", "If"), ("", "Tile"), ("", "StringSplit"), ("", "RandomNormal"),
        ("com.microsoft", "EPContext"), ("com.microsoft", "PythonOp"), ("com.microsoft", "ReluGrad"),
        ("org.pytorch.aten", "ATen"), ("of.somebody", "Relu"),
    ],
)  # fmt: skip
def test_operators_of_no_export(domain: str, operator: str) -> None:
    node = helper.make_node(operator, ["images"], ["features"], domain=domain)
    assert repr(operator) in refusal(model(node).SerializeToString())
    for operators in (TRAINING, DEPLOYED):
        if (domain, operator) != ("com.microsoft", "ReluGrad"):
            refusal(model(node).SerializeToString(), operators)


def test_a_graph_within_an_operator_that_has_none() -> None:
    body = helper.make_graph([helper.make_node("Identity", ["images"], ["y"])], "body", [], [FEATURES])
    node = helper.make_node("Relu", ["images"], ["features"], body=body)
    assert "inside of the operator 'Relu'" in refusal(model(node).SerializeToString())
    for _ in range(3):
        body = helper.make_graph(
            [helper.make_node("Scan", ["images"], ["y"], body=body, num_scan_inputs=1)], "b", [], [FEATURES]
        )
    assert "graphs inside of graphs" in refusal(model(*body.node).SerializeToString())


def test_functions_and_other_parts_that_no_export_has() -> None:
    hostile = model()
    function = helper.make_function("of", "f", ["x"], ["y"], [], [helper.make_opsetid("", 17)])
    hostile.functions.append(function)
    assert "functions of its own" in refusal(hostile.SerializeToString())
    hostile = model()
    hostile.training_info.add()
    assert "training information" in refusal(hostile.SerializeToString())
    hostile = model()
    hostile.metadata_props.add(key="ort_config", value="{}")
    assert "ort_config" in refusal(hostile.SerializeToString())
    hostile = model()
    hostile.graph.sparse_initializer.add()
    assert "sparse tensors" in refusal(hostile.SerializeToString())
    twice = model().SerializeToString() + model().SerializeToString()
    assert "two of" in refusal(twice)


# --- what is too large, or not there


@pytest.mark.parametrize(
    ("dims", "said"),
    [
        ((1 << 20, 1 << 20), "its shape says"),
        ((-1,), "a shape that none has"),
        ((1,) * 9, "a shape"),
        ((5,), "says 20"),
    ],
)
def test_tensors_whose_shape_is_not_that_of_their_data(dims: tuple[int, ...], said: str) -> None:
    tensor = TensorProto(name="t\x1b[2J", data_type=TensorProto.FLOAT, dims=dims, raw_data=bytes(16))
    text = refusal(model(tensors=(WEIGHT, tensor)).SerializeToString())
    assert said in text and text.isprintable()
    typed = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1 << 30], float_data=[1.0])
    assert "its shape says" in refusal(model(tensors=(WEIGHT, typed)).SerializeToString())


def test_files_and_graphs_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkt_core.onnx_files.reading.MOST_NODES", 2)
    nodes = [helper.make_node("Relu", ["images"], [f"n{index}"]) for index in range(3)]
    assert "more than 2 nodes" in refusal(model(*nodes).SerializeToString())
    monkeypatch.setattr(judging, "MOST_BYTES", 10)
    assert "allowed are 10" in refusal(model().SerializeToString())


def test_nothing_at_all() -> None:
    assert "it has no graph" in refusal(b"")
    refusal(b"\x3a")
    refusal(b"<html>")


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_are_refused_by_name_or_read(digits_bundle: Bundle, data: st.DataObject) -> None:
    content = bytearray(digits_bundle.file(PREDICT).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(content) - 1))
        content[begin : begin + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    with contextlib.suppress(UnsafeModelError):
        check_model(bytes(content), "predict.onnx", STANDARD)


# --- images that pass through


def graph_of(*nodes: onnx.NodeProto) -> bytes:
    return bytes(model(*nodes).SerializeToString())


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Concat", ["images"] * 5, ["features"], axis=1)],
        [helper.make_node("Identity", ["images"], ["features"])],
        [
            helper.make_node("Conv", ["images", "weight"], ["x"]),
            helper.make_node("Mul", ["images", "weight"], ["y"]),
            helper.make_node("Concat", ["x", "y"], ["features"], axis=1),
        ],
    ],
    ids=["concat", "identity", "beside a convolution"],
)  # fmt: skip
def test_images_that_pass_through(nodes: list[onnx.NodeProto]) -> None:
    graph = read_model(graph_of(*nodes)).graph
    with pytest.raises(UnsafeModelError, match="passes the private images through: its features are made"):
        check_computed(graph, "predict.onnx", output="features", source="images")


def test_shapes_of_images_and_convolutions_are_no_images() -> None:
    nodes = (
        helper.make_node("Conv", ["images", "weight"], ["x"]),
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Reshape", ["x", "shape"], ["features"]),
    )
    check_computed(read_model(graph_of(*nodes)).graph, "x", output="features", source="images")


def test_a_file_that_passes_images_through_is_not_given(tmp_path: Path) -> None:
    path = tmp_path / "predict.onnx"
    path.write_bytes(graph_of(helper.make_node("Identity", ["images"], ["features"])))
    with pytest.raises(UnsafeModelError, match="passes the private images through"):
        check_model_file(path, STANDARD, computes="features")
