"""An ONNX graph that is written node by node: names, constants, and the few operators that steps need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_export.onnx_files import IR_VERSION

# The newest that ONNX Runtime 1.13 (2022) takes, as is the version of the file.
OPSET = 17
# One sum over 256 by 256 equal pixels is 8e-5 off, row by row 7e-7: a batch norm's gradient was three times
# as far from float64 as PyTorch's. Up to here one sum is as near as PyTorch's, and a fifth faster.
_PIXELS_OF_ONE_SUM = 64 * 64
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


class Graph:
    """Nodes in the order in which they are added. Values are names; constants are shared by content."""

    def __init__(self, name: str, prefix: str = "") -> None:
        # A graph inside another must not have names of the outer one: hence the prefix of its values.
        self._name, self._prefix = name, prefix
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._batches: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[int | str], dtype: str = "float32") -> str:
        """Declare an input; a text in ``shape`` is a dynamic length."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))
        return name

    def output(self, value: str, name: str, shape: Sequence[int | str], dtype: str = "float32") -> None:
        """Give a value out under a name; one that no node has made, or that is out already, as a copy."""
        is_made = any(value in node.output for node in self._nodes)
        if is_made and value not in {info.name for info in self._outputs}:
            for node in self._nodes:
                for names in (node.input, node.output):
                    names[:] = [name if each == value else each for each in names]
        else:
            self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        """A constant, stored once however often it is used."""
        return self.constant_array(np.asarray(value, dtype=dtype))

    def constant_array(self, array: NDArray[Any]) -> str:
        """An array as a constant, stored once however often it is used."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = f"{self._prefix}constant_{len(self._constants)}"
            self._initializers.append(numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; the output's name."""
        return self.multi_op(op_type, 1, *inputs, **attributes)[0]

    def multi_op(self, op_type: str, num_outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        stem = f"{self._prefix}{op_type.lower()}_{len(self._nodes)}"
        names = [stem] if num_outputs == 1 else [f"{stem}_{index}" for index in range(num_outputs)]
        self._nodes.append(helper.make_node(op_type, list(inputs), names, **attributes))
        return names

    def copy_node(self, node: onnx.NodeProto, names: Mapping[str, str]) -> dict[str, str]:
        """Add a node of another graph, whose inputs have these names here; the names of its outputs."""
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        inputs = [names[name] if name else "" for name in node.input]
        made = self.multi_op(node.op_type, len(node.output), *inputs, **attributes)
        return dict(zip(node.output, made, strict=True))

    def add(self, *values: str) -> str:
        """Their sum, in the order given."""
        total = values[0]
        for value in values[1:]:
            total = self.op("Add", total, value)
        return total

    def scale(self, value: str, factor: float) -> str:
        """``factor * value``."""
        return value if factor == 1 else self.op("Mul", value, self.constant(factor))

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """Reshape as ONNX does: 0 keeps a length, -1 is worked out."""
        return self.op("Reshape", value, self.constant(shape, np.int64))

    def batch(self, value: str, like: str, sample_shape: Sequence[int]) -> str:
        """Give a value that was made of the whole batch the shape ``[N, ...]`` of another: a row an image."""
        rows = self.op("Reshape", value, self.op("Shape", like))
        self._batches.append(helper.make_tensor_value_info(rows, TensorProto.FLOAT, ["N", *sample_shape]))
        return rows

    def transpose(self, matrix: str) -> str:
        """Transpose a matrix ``[M, N]``."""
        return self.op("Transpose", matrix, perm=[1, 0])

    def sum(self, value: str, axes: Sequence[int], *, keep: bool = False) -> str:
        """Sum over axes."""
        return self.op("ReduceSum", value, self.constant(axes, np.int64), keepdims=int(keep))

    def sum_images(self, value: str, shape: Sequence[int]) -> str:
        """``[N, C, H, W]`` to ``[C]``: over pixels, then over the batch, faster than at once.

        ``shape`` is ``(C, H, W)``. Of large images each row is summed by itself, as rounding grows with the
        number of terms.
        """
        _, height, width = shape
        if height * width <= _PIXELS_OF_ONE_SUM:
            return self.sum(self.sum(value, (2, 3)), (0,))
        return self.sum(self.sum(self.sum(value, (3,)), (2,)), (0,))

    def split(self, vector: str, shapes: Sequence[Sequence[int]]) -> list[str]:
        """Cut a flat vector into tensors."""
        sizes = [math.prod(shape) for shape in shapes]
        if len(shapes) == 1:
            return [self.reshape(vector, shapes[0])]
        parts = self.multi_op("Split", len(sizes), vector, self.constant(sizes, np.int64), axis=0)
        return [self.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]

    def join(self, values: Sequence[str]) -> str:
        """Tensors as one flat vector."""
        flat = [self.reshape(value, (-1,)) for value in values]
        return flat[0] if len(flat) == 1 else self.op("Concat", *flat, axis=0)

    def proto(self) -> onnx.GraphProto:
        """The finished graph, without nodes that nothing comes of."""
        wanted = {info.name for info in self._outputs}
        nodes = []
        for node in reversed(self._nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                wanted.update(_taken_from_outside(node))
                nodes.append(node)
        nodes.reverse()
        constants = [tensor for tensor in self._initializers if tensor.name in wanted]
        return helper.make_graph(
            nodes, self._name, self._inputs, self._outputs, constants, value_info=self._batches
        )

    def model(self) -> onnx.ModelProto:
        """The finished, checked model."""
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(self.proto(), opset_imports=opsets, producer_name="gkt")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return model


def _taken_from_outside(node: onnx.NodeProto) -> set[str]:
    """What graphs inside a node take from the graph around it."""
    return {
        name
        for attribute in node.attribute
        if attribute.HasField("g")
        for inner in attribute.g.node
        for name in inner.input
    }
