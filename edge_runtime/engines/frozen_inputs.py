"""Inputs of an ONNX file become constants, by its bytes alone: a device has no onnx.

ONNX Runtime folds, packs and reorders only what cannot change: weights that are inputs it takes as they come
in every call. The file is a protobuf message; of it only the list of the graph's inputs is looked at.
Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import ArtifactError

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT = 5, 11
_INPUT_NAME = 1
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_FLOAT = 1
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_REMEDY = "export or download the bundle again"
_WIDTHS = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}


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
    for number, field, content in _fields(model):
        if number != _MODEL_GRAPH:
            rest += field
            continue
        graph = bytearray()
        for inner, inner_field, inner_content in _fields(content):
            name = _name(inner_content) if inner == _GRAPH_INPUT else None
            if name in values:
                frozen.add(name)
            else:
                graph += inner_field
        for name, value in values.items():
            graph += _message(_GRAPH_INITIALIZER, _tensor(name, value))
        rest += _message(_MODEL_GRAPH, bytes(graph))
    if frozen != set(values):
        missing = sorted(set(values) - frozen)
        raise ArtifactError(f"the model has no input {', '.join(missing)}; {_REMEDY}")
    return bytes(rest)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Give number, whole bytes and content of each field in turn; numbers have no content."""
    position = 0
    while position < len(message):
        begin = position
        key, position = _read_varint(message, position)
        content = b""
        kind = key & 7
        if kind == _VARINT:
            _, position = _read_varint(message, position)
        elif kind == _LENGTH:
            length, position = _read_varint(message, position)
            content = message[position : position + length]
            position += length
        elif kind in _WIDTHS:
            position += _WIDTHS[kind]
        else:
            raise ArtifactError(f"no ONNX file: a field of kind {kind} at byte {begin}; {_REMEDY}")
        if position > len(message):
            raise ArtifactError(f"no whole ONNX file: it is cut short; {_REMEDY}")
        yield key >> 3, message[begin:position], content


def _name(value_info: bytes) -> str | None:
    for number, _, content in _fields(value_info):
        if number == _INPUT_NAME:
            return content.decode("utf-8", "replace")
    return None


def _tensor(name: str, value: NDArray[np.float32]) -> bytes:
    dims = b"".join(_key(_TENSOR_DIMS, _VARINT) + _varint(length) for length in value.shape)
    kind = _key(_TENSOR_TYPE, _VARINT) + _varint(_FLOAT)
    raw = np.ascontiguousarray(value, dtype="<f4").tobytes()
    return dims + kind + _message(_TENSOR_NAME, name.encode()) + _message(_TENSOR_RAW, raw)


def _message(number: int, content: bytes) -> bytes:
    return _key(number, _LENGTH) + _varint(len(content)) + content


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    """Encode seven bits a byte, low ones first; the eighth says that more follow."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    """Read a number, and where it ends."""
    value = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position
    raise ArtifactError(f"no whole ONNX file: it is cut short; {_REMEDY}")
