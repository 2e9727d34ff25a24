"""Inputs of an ONNX file become constants, by its bytes alone: a device has no onnx.

ONNX Runtime folds, packs and reorders only what cannot change: weights that are inputs it takes as they come
in every call. The file is a protobuf message; of it only the list of the graph's inputs is looked at.
Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import ArtifactError
from gkt_core.onnx_files.protobuf import fields, message_field, number_field

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT = 5, 11
_INPUT_NAME = 1
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_FLOAT = 1
_REMEDY = "export or download the bundle again"


def freeze_inputs(model: bytes, values: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Give some inputs of a model their value for good.

    Args:
        model: The ONNX file.
        values: float32 tensors by the name of the input that each takes the place of.

    Returns:
        The file with so many inputs fewer.

    Raises:
        ArtifactError: The bytes are no ONNX file, or it has no such input.
    """
    frozen, rest = set(), bytearray()
    for outer in fields(model):
        if outer.number != _MODEL_GRAPH:
            rest += outer.whole
            continue
        graph = bytearray()
        for inner in fields(outer.content):
            name = _name(inner.content) if inner.number == _GRAPH_INPUT else None
            if name in values:
                frozen.add(name)
            else:
                graph += inner.whole
        for name, value in values.items():
            graph += message_field(_GRAPH_INITIALIZER, _tensor(name, value))
        rest += message_field(_MODEL_GRAPH, bytes(graph))
    if frozen != set(values):
        missing = sorted(set(values) - frozen)
        raise ArtifactError(f"the model has no input {', '.join(missing)}; {_REMEDY}")
    return bytes(rest)


def _name(value_info: memoryview) -> str | None:
    for each in fields(value_info):
        if each.number == _INPUT_NAME:
            return str(each.content, "utf-8", "replace")
    return None


def _tensor(name: str, value: NDArray[np.float32]) -> bytes:
    dims = b"".join(number_field(_TENSOR_DIMS, length) for length in value.shape)
    kind = number_field(_TENSOR_TYPE, _FLOAT)
    raw = np.ascontiguousarray(value, dtype="<f4").tobytes()
    return dims + kind + message_field(_TENSOR_NAME, name.encode()) + message_field(_TENSOR_RAW, raw)
