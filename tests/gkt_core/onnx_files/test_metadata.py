"""Metadata is written as bytes, and onnx and ONNX Runtime read it; everything else stays as it was."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gkt_core.errors import UnsafeModelError
from gkt_core.onnx_files.metadata import metadata_in, with_metadata


def small_model() -> bytes:
    weights = numpy_helper.from_array(np.arange(3, dtype=np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "weights"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"class_names": "[]", "gkt": "before"})
    return bytes(model.SerializeToString())


MODEL = small_model()


@given(st.dictionaries(st.text(min_size=1, max_size=300), st.text(max_size=300), max_size=4))
def test_onnx_reads_what_was_written(entries: dict[str, str]) -> None:
    written = with_metadata(MODEL, entries)
    model = onnx.load_from_string(written)
    expected = {"class_names": "[]", "gkt": "before", **entries}
    assert {each.key: each.value for each in model.metadata_props} == expected == metadata_in(written)
    assert len(model.metadata_props) == len(expected)
    assert model.graph == onnx.load_from_string(MODEL).graph


def test_onnx_runtime_reads_it_and_computes_the_same() -> None:
    written = with_metadata(MODEL, {"gkt": "x" * 70_000})
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"class_names": "[]", "gkt": "x" * 70_000}
    (y,) = session.run(["y"], {"x": np.ones(3, np.float32)})
    assert y.tolist() == [1, 2, 3]
    # What is written twice is there once, and weights lie where they lay.
    assert with_metadata(written, {"gkt": "before"}).index(b"weights") == MODEL.index(b"weights")
    assert metadata_in(with_metadata(written, {"gkt": "after"}))["gkt"] == "after"


def test_what_is_no_model_is_refused() -> None:
    for data in (MODEL[:-3], b"\xff" * 40):
        with pytest.raises(UnsafeModelError):
            with_metadata(data, {"gkt": "x"})
