"""A training step a few images at a time, phase by phase: what a layer makes is in the cache for the next.

Each phase is a ``Scan`` over chunks of the batch. The batch is filled up with zeros to a whole number of
chunks of one length; sums over images are made outside, without the rows of the filling, so that they and
the whole step are those of the step over the whole batch.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from edge_export.portable.graph import Graph
from edge_export.portable.phases import FlatStep, Part, plan_phases

# Four images of 32 by 32 pixels: 64 channels of them take 1 MB. With fewer, two threads gain nothing.
_PIXELS_AT_ONCE = 4096
_DTYPES = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64"}


def in_chunks(model: onnx.ModelProto, *, low_memory: bool = False) -> onnx.ModelProto:
    """Rewrite a step over the whole batch, whose axis is named ``N``, to run a few images at a time.

    With ``low_memory`` each phase makes wide values again rather than to keep them.
    """
    return _Chunked(FlatStep(model), low_memory=low_memory).model()


def images_of_a_chunk(height: int, width: int) -> int:
    """How many images of so many pixels a phase works on at once."""
    return max(1, _PIXELS_AT_ONCE // (height * width))


class _Chunked:
    def __init__(self, flat: FlatStep, *, low_memory: bool) -> None:
        self._flat = flat
        self._plan = plan_phases(flat, low_memory=low_memory)
        self._graph = Graph("train_step")
        self._names: dict[str, str] = {}
        self._chunked: dict[str, str] = {}
        for name in flat.inputs:
            self._names[name] = self._graph.input(name, flat.shapes[name], _DTYPES[flat.types[name]])
        self._length, self._filling, self._chunks = self._lengths()

    def model(self) -> onnx.ModelProto:
        flat, graph = self._flat, self._graph
        outside = [node for node in flat.nodes if flat.is_outside(node)]
        for phase, part in enumerate(self._plan.phases):
            outside = self._emit_outside(outside, phase)
            if part.nodes:
                self._emit_phase(part, f"phase{phase}")
        self._emit_outside(outside, len(self._plan.phases))
        for name in flat.outputs:
            graph.output(self._whole(name), name, flat.shapes[name], _DTYPES[flat.types[name]])
        return graph.model()

    def _lengths(self) -> tuple[str, str, str]:
        """``[1] int64`` each: images, rows of filling; and ``[2]``: how many chunks of how many images."""
        graph = self._graph
        _, height, width = self._flat.sample_shape("images")
        at_once = images_of_a_chunk(height, width)
        most, one = graph.constant([at_once], np.int64), graph.constant([1], np.int64)
        length = graph.op("Gather", graph.op("Shape", "images"), graph.constant([0], np.int64))

        def rounded_up(count: str, divisor: str) -> str:
            return graph.op("Div", graph.op("Sub", graph.add(count, divisor), one), divisor)

        num_chunks = rounded_up(length, most)
        in_each = rounded_up(length, num_chunks)
        filling = graph.op("Sub", graph.op("Mul", num_chunks, in_each), length)
        return length, filling, graph.op("Concat", num_chunks, in_each, axis=0)

    def _emit_outside(self, nodes: list[NodeProto], phase: int) -> list[NodeProto]:
        """Add what can run before a phase; what cannot."""
        later = []
        for node in nodes:
            if self._plan.level[node.output[0]] > phase:
                later.append(node)
            elif self._flat.is_first_image(node):
                self._names[node.output[0]] = self._emit_first_image(node)
            else:
                renamed = {name: self._whole(name) for name in node.input}
                self._names.update(self._graph.copy_node(node, renamed))
        return later

    def _emit_first_image(self, node: NodeProto) -> str:
        graph, part = self._graph, self._plan.first_images[node.output[0]]
        zeros, ones, axes = (graph.constant(value, np.int64) for value in ([0, 0], [1, 1], [0, 1]))
        names = {}
        for value in part.takes:
            first = graph.op("Slice", self._in_chunks(value), zeros, ones, axes)
            names[value] = graph.reshape(first, (1, *self._flat.sample_shape(value)))
        for made in part.nodes:
            renamed = {name: names.get(name) or self._whole(name) for name in made.input}
            names.update(graph.copy_node(made, renamed))
        return names[node.input[0]]

    def _emit_phase(self, part: Part, name: str) -> None:
        flat, body = self._flat, Graph(name, prefix=f"{name}_")
        names = {
            value: body.input(f"{name}_{value}", ("c", *flat.sample_shape(value)), _DTYPES[flat.types[value]])
            for value in part.takes
        }
        for node in part.nodes:
            renamed = {}
            for value in node.input:
                if value in flat.constants:
                    renamed[value] = body.constant_array(numpy_helper.to_array(flat.constants[value]))
                else:
                    renamed[value] = names.get(value) or self._names[value]
            names.update(body.copy_node(node, renamed))
        for value in part.gives:
            shape: list[int | str] = ["c", *flat.sample_shape(value)]
            body.output(names[value], f"{name}_next_{value}", shape, _DTYPES[flat.types[value]])
        taken = [self._in_chunks(value) for value in part.takes]
        given = self._graph.multi_op(
            "Scan", len(part.gives), *taken, body=body.proto(), num_scan_inputs=len(taken)
        )
        self._chunked.update(zip(part.gives, given, strict=True))

    def _in_chunks(self, value: str) -> str:
        """``[chunks, images, ...]`` of a value ``[N, ...]``."""
        if value not in self._chunked:
            graph, shape = self._graph, self._flat.sample_shape(value)
            none, rest = graph.constant([0] * (1 + len(shape)), np.int64), [0] * len(shape)
            pads = [none, self._filling, *([graph.constant(rest, np.int64)] if rest else [])]
            filled = graph.op("Pad", self._names[value], graph.op("Concat", *pads, axis=0))
            lengths = [self._chunks, *([graph.constant(shape, np.int64)] if shape else [])]
            wanted = graph.op("Concat", *lengths, axis=0) if shape else self._chunks
            self._chunked[value] = graph.op("Reshape", filled, wanted)
        return self._chunked[value]

    def _whole(self, value: str) -> str:
        """Graph name of a constant, of a value of no phase, or ``[N, ...]`` of one that left its phase."""
        if value not in self._names:
            graph, flat = self._graph, self._flat
            if value in flat.constants:
                self._names[value] = graph.constant_array(numpy_helper.to_array(flat.constants[value]))
            else:
                rows = graph.reshape(self._chunked[value], (-1, *flat.sample_shape(value)))
                zero = graph.constant([0], np.int64)
                self._names[value] = graph.op("Slice", rows, zero, self._length, zero)
        return self._names[value]
