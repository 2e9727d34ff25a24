"""What a graph of the portable engine holds at once: values from their node to their last user."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import onnx
from onnx import GraphProto, NodeProto, ValueInfoProto, shape_inference


def batch_bytes(model: onnx.ModelProto) -> tuple[int, int]:
    """Count what lives at once while a model runs, at the moment at which it is most.

    Counted are values with a row for each image; what has none (weights, statistics) is small beside them.

    Returns:
        Bytes for each image of a batch, and bytes for each image that a phase works on at once.
    """
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    sizes = dict(_sizes((*graph.input, *graph.value_info, *graph.output), "N"))
    at_once = 0
    for node in graph.node:
        body = _body(node)
        if body is None:
            continue
        # A value of a phase is [chunks, images, ...] outside, whose lengths nobody knows before it runs.
        taken = _sizes(body.input, "c")
        sizes.update((name, size) for name, (_, size) in zip(node.input, taken, strict=True))
        given = _sizes(body.output, "c")
        sizes.update((name, size) for name, (_, size) in zip(node.output, given, strict=True))
        within = dict(_sizes((*body.input, *body.value_info, *body.output), "c"))
        # Those that come in and go out are parts of what is counted outside.
        for value in (*body.input, *body.output):
            within.pop(value.name, None)
        at_once = max(at_once, _most(body.node, within, kept=()))
    return _most(graph.node, sizes, kept=[value.name for value in graph.output]), at_once


def _body(node: NodeProto) -> GraphProto | None:
    return next((attribute.g for attribute in node.attribute if attribute.name == "body"), None)


def _sizes(values: Iterable[ValueInfoProto], batch: str) -> Iterator[tuple[str, int]]:
    """Bytes of one image's part of each value; 0 without a row for each image."""
    for value in values:
        kind = value.type.tensor_type
        first, *rest = kind.shape.dim or [None]
        is_batch = first is not None and first.dim_param == batch
        width = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize if is_batch else 0
        yield value.name, width * math.prod(axis.dim_value for axis in rest if axis is not None)


def _most(nodes: Iterable[NodeProto], sizes: dict[str, int], kept: Iterable[str]) -> int:
    ordered = list(nodes)
    last = {name: index for index, node in enumerate(ordered) for name in node.input}
    last |= {name: len(ordered) for name in kept if name in sizes}
    made = {name for node in ordered for name in node.output}
    live = {name for name in sizes if name not in made and name in last}
    most = 0
    for index, node in enumerate(ordered):
        live.update(name for name in node.output if name in sizes)
        most = max(most, sum(sizes[name] for name in live))
        live = {name for name in live if last.get(name, -1) > index}
    return most
