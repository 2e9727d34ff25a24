"""Which parts of a step can run a few images at a time, and what must be kept between them.

Batch norm sees the whole batch: what is after it waits for the last image before it. Such barriers cut the
step into phases. Within a phase images have nothing to do with each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from onnx import NodeProto, helper, shape_inference

_ELEMENTWISE = {"Relu", "HardSigmoid", "Mul", "Add", "Sub", "Div", "BatchNormalization"}
_COPIES = {"Reshape", "Transpose", "Concat", "Pad", "Slice"}
# A value this much smaller than what is made of it costs next to nothing to keep.
_SMALL_SHARE = 16


class FlatStep:
    """A step over the whole batch, with what shape inference says of it.

    Attributes:
        nodes: In order.
        shapes: Of every value, the batch written ``"N"``.
        types: Element types, as ``TensorProto`` numbers them.
        constants: Initializers by name.
        maker: Index of the node that makes a value; graph inputs have none.
        users: Nodes that take a value.
        outputs: Names of the graph's outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self.nodes: list[NodeProto] = list(graph.node)
        self.shapes: dict[str, list[int | str]] = {}
        self.types: dict[str, int] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            self.shapes[value.name] = [axis.dim_param or axis.dim_value for axis in kind.shape.dim]
            self.types[value.name] = kind.elem_type
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.maker = {out: index for index, node in enumerate(self.nodes) for out in node.output}
        self.users: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.users.setdefault(name, []).append(node)
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]

    def is_batch(self, value: str) -> bool:
        """Whether it has a row for each image."""
        shape = self.shapes.get(value)
        return bool(shape) and shape is not None and shape[0] == "N"

    def sample_shape(self, value: str) -> list[int]:
        """Shape of one image's part."""
        return [int(length) for length in self.shapes[value][1:]]

    def is_first_image(self, node: NodeProto) -> bool:
        """Whether it takes the first image out of a batch, as the centring of a convolution does."""
        return node.op_type == "Slice" and self.is_batch(node.input[0]) and not self.is_batch(node.output[0])

    def is_given(self, value: str) -> bool:
        """Whether it has a row for each image and was made of the whole batch, not image by image."""
        if not self.is_batch(value) or value not in self.maker:
            return False
        node = self.nodes[self.maker[value]]
        return not any(self.is_batch(name) for name in node.input)

    def is_outside(self, node: NodeProto) -> bool:
        """Whether it runs between phases."""
        return not self.is_batch(node.output[0]) or self.is_given(node.output[0])

    def is_whole(self, node: NodeProto) -> bool:
        """Whether it needs the whole batch, or nothing of it."""
        return not self.is_batch(node.output[0]) and not self.is_first_image(node)


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes that work on any number of images.

    Attributes:
        nodes: In order.
        takes: Values that are there for the whole batch before.
        gives: Values that are wanted after.
    """

    nodes: list[NodeProto]
    takes: list[str]
    gives: list[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A step in phases.

    Attributes:
        phases: One after the other.
        first_images: How the first image's value is made, by the node's output that takes it.
        level: Before which phase a node can run that is in none, by output.
    """

    phases: list[Part]
    first_images: dict[str, Part]
    level: dict[str, int]


def plan_phases(flat: FlatStep, *, low_memory: bool) -> Plan:
    """Cut a step into phases.

    Args:
        flat: The step.
        low_memory: Whether what a 1x1 convolution makes is made again in each phase that needs it, if it has
            no fewer channels than what it is made of. Otherwise only what takes one pass over it is, such as
            ReLU masks and shifted copies: that costs no more than to write it and to read it.
    """
    level = _levels(flat)
    _make_late(flat, level)
    leaving = {
        value
        for value in flat.maker
        if flat.is_batch(value)
        and not flat.is_given(value)
        and (value in flat.outputs or any(flat.is_whole(user) for user in flat.users.get(value, ())))
    }
    again = _made_again(flat, level, leaving, low_memory=low_memory)
    kept: set[str] = set(leaving)

    def part(gives: Iterable[str], phase: int) -> Part:
        nodes: set[int] = set()
        takes: dict[str, None] = {}
        todo = list(gives)
        while todo:
            value = todo.pop()
            if not flat.is_batch(value):
                continue
            index = flat.maker.get(value)
            if index is None or flat.is_given(value):
                takes[value] = None
            elif level[value] != phase and value not in again:
                kept.add(value)
                takes[value] = None
            elif index not in nodes:
                nodes.add(index)
                todo.extend(flat.nodes[index].input)
        return Part([flat.nodes[index] for index in sorted(nodes)], sorted(takes), list(gives))

    phases: list[Part] = []
    first_images: dict[str, Part] = {}
    # From the last to the first: by then it is known what later ones take.
    for phase in reversed(range(1 + max(level[value] for value in flat.maker if flat.is_batch(value)))):
        for node in flat.nodes:
            if flat.is_first_image(node) and level[node.output[0]] == phase:
                first_images[node.output[0]] = part([node.input[0]], phase)
        gives = [value for value in flat.maker if value in kept and level[value] == phase]
        phases.append(part(gives, phase))
    return Plan(phases[::-1], first_images, level)


def _levels(flat: FlatStep) -> dict[str, int]:
    """The earliest phase of each value that has a row for each image; of others, before which they can be."""
    level = dict.fromkeys(flat.inputs, 0)
    for node in flat.nodes:
        earliest = 0
        for name in node.input:
            if name not in flat.constants:
                waits = flat.is_whole(node) and flat.is_batch(name) and name in flat.maker
                earliest = max(earliest, level[name] + waits)
        level.update(dict.fromkeys(node.output, earliest))
    return level


def _make_late(flat: FlatStep, level: dict[str, int]) -> None:
    """Move what is made early and used late to where it is used: less is kept then."""
    for node in reversed(flat.nodes):
        value = node.output[0]
        is_movable = node.op_type in _ELEMENTWISE | _COPIES or _is_pointwise_to_no_fewer(flat, node)
        if not (is_movable and flat.is_batch(value)) or value in flat.outputs:
            continue
        made = [user.output[0] for user in flat.users.get(value, [])]
        if made and all(flat.is_batch(other) for other in made):
            level[value] = min(level[other] for other in made)


def _made_again(flat: FlatStep, level: dict[str, int], leaving: set[str], *, low_memory: bool) -> set[str]:
    """Values that are cheap to make of ones that are kept, or are made again themselves."""
    again: set[str] = set()
    kept: set[str] = set(leaving)
    for node in flat.nodes:
        value = node.output[0]
        if not flat.is_batch(value) or value in leaving or flat.is_given(value):
            continue
        size = math.prod(flat.sample_shape(value))
        at_hand = (
            name not in flat.maker
            or flat.is_given(name)
            or name in kept | again
            or (low_memory and math.prod(flat.sample_shape(name)) * _SMALL_SHARE <= size)
            for name in node.input
            if flat.is_batch(name)
        )
        if _is_cheap(flat, node, low_memory=low_memory) and all(at_hand):
            again.add(value)
        elif any(level[user.output[0]] > level[value] for user in flat.users.get(value, ())):
            kept.add(value)
    return again


def _is_cheap(flat: FlatStep, node: NodeProto, *, low_memory: bool) -> bool:
    is_pass = node.op_type in _ELEMENTWISE | _COPIES
    return is_pass or (low_memory and _is_pointwise_to_no_fewer(flat, node))


def _is_pointwise_to_no_fewer(flat: FlatStep, node: NodeProto) -> bool:
    """Whether it is a 1x1 convolution with at least as many channels after it as before it."""
    kernel = [helper.get_attribute_value(each) for each in node.attribute if each.name == "kernel_shape"]
    if node.op_type != "Conv" or kernel != [[1, 1]] or not flat.is_batch(node.output[0]):
        return False
    return flat.sample_shape(node.output[0])[0] >= flat.sample_shape(node.input[0])[0]
