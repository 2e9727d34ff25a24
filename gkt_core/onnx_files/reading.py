"""Read an ONNX file strictly into its nodes, tensors and interface, without onnx and without ONNX Runtime.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. What could lead outside of the file, or
could be read in two ways, is refused here whoever asks: external data, functions, references, sparse tensors,
two graphs, a file of ONNX Runtime's own format that also looks like this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gkt_core.errors import UnsafeModelError
from gkt_core.onnx_files.protobuf import (
    FOUR_BYTES,
    Field,
    Schema,
    contents,
    number,
    numbers,
    read,
    text,
    texts,
)

_OTHER_FORMAT = b"ORTM"
# float32, uint8, int8, int32, int64, bool, float16, float64.
_ITEM_BYTES: Final = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8}
MOST_NODES = 100_000
_MOST_DIMS, _DEEPEST = 8, 2
FLOAT: Final = 1

_MODEL = Schema(
    "model",
    {
        1: "ir_version", 2: "producer", 3: "producer_version", 4: "domain", 5: "version", 6: "doc", 7:
            "graph",
        8: "opsets", 14: "metadata",
    },
    frozenset(("ir_version", "producer", "producer_version", "domain", "version", "doc", "graph")),
    {20: "training information", 25: "functions of its own", 26: "a configuration of devices"},
)  # fmt: skip
_OPSET = Schema("list of operator sets", {1: "domain", 2: "version"}, frozenset(("domain", "version")))
_PAIR = Schema("metadata", {1: "key", 2: "value"}, frozenset(("key", "value")))
_GRAPH = Schema(
    "graph",
    {
        1: "nodes", 2: "name", 5: "tensors", 10: "doc", 11: "inputs", 12: "outputs", 13: "values",
        16: "metadata",
    },
    frozenset(("name", "doc")),
    {14: "annotations of quantisation", 15: "sparse tensors"},
)  # fmt: skip
_NODE = Schema(
    "node",
    {
        1: "inputs",
        2: "outputs",
        3: "name",
        4: "operator",
        5: "attributes",
        6: "doc",
        7: "domain",
        9: "metadata",
    },
    frozenset(("name", "operator", "doc", "domain")),
    {8: "an overloaded function", 10: "a configuration of devices"},
)
_ATTRIBUTE = Schema(
    "attribute",
    {
        1: "name", 2: "float", 3: "int", 4: "text", 5: "tensor", 6: "graph", 7: "floats", 8: "ints", 9:
            "texts",
        13: "doc", 20: "type",
    },
    frozenset(("name", "float", "int", "text", "tensor", "graph", "doc", "type")),
    {
        10: "several tensors", 11: "several graphs", 21: "a reference to a function's attribute",
        22: "a sparse tensor", 23: "sparse tensors",
    },
)  # fmt: skip
_TENSOR = Schema(
    "tensor",
    {
        1: "dims", 2: "type", 4: "floats", 5: "ints", 7: "longs", 8: "name", 9: "raw", 10: "doubles", 12:
            "doc",
        14: "location", 16: "metadata",
    },
    frozenset(("type", "name", "raw", "doc", "location")),
    {
        3: "a segment of a larger tensor", 6: "texts",
        13: "external data: it would read other files of this machine",
    },
)  # fmt: skip
_VALUE = Schema("value", {1: "name", 2: "type", 3: "doc", 4: "metadata"}, frozenset(("name", "type", "doc")))
_TYPE = Schema(
    "type",
    # Sequences of tensors are what ONNX Runtime's optimizers take; no operator that is allowed makes one.
    {1: "tensor", 4: "sequence", 6: "denotation"},
    frozenset(("tensor", "sequence", "denotation")),
    {5: "a map", 8: "a sparse tensor", 9: "an optional value"},
)
_TENSOR_TYPE = Schema("tensor's type", {1: "type", 2: "shape"}, frozenset(("type", "shape")))
_SEQUENCE = Schema("type of a sequence", {1: "element"}, frozenset(("element",)))
_TYPED_DATA = ("floats", "ints", "longs", "doubles")


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a graph.

    Attributes:
        operator: Its name.
        domain: Empty for ``ai.onnx``.
        inputs: Names of its inputs; empty names for those that it does without.
        outputs: Names of its outputs.
        bodies: Graphs that it holds.
    """

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bodies: tuple[Graph, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes of a graph and its interface.

    Attributes:
        nodes: In the order of the file.
        inputs: Names and element types, as ONNX numbers them (1 is float32), in order; 0 where it does not
            say.
        outputs: The same of its outputs.
        tensors: Names of the tensors that the file holds.
    """

    nodes: tuple[Node, ...]
    inputs: dict[str, int]
    outputs: dict[str, int]
    tensors: frozenset[str]

    def all_nodes(self) -> Iterator[Node]:
        """Give every node, those of inner graphs too."""
        for node in self.nodes:
            yield node
            for body in node.bodies:
                yield from body.all_nodes()


@dataclass(frozen=True, slots=True)
class Model:
    """An ONNX file.

    Attributes:
        graph: What it computes.
        metadata: Its keys and values.
    """

    graph: Graph
    metadata: dict[str, str]


def read_model(data: bytes) -> Model:
    """Read an ONNX file.

    Raises:
        UnsafeModelError: It is none, is cut short, or has what no export of gkt has; says what.
    """
    if data[4:8] == _OTHER_FORMAT:
        raise UnsafeModelError("it could be taken for a file of ONNX Runtime's own format")
    given = read(data, _MODEL)
    if not given["graph"]:
        raise UnsafeModelError("no whole ONNX file: it has no graph")
    for each in contents(given["opsets"]):
        read(each, _OPSET)
    counted = _Counted()
    graph = _graph(contents(given["graph"])[0], counted, depth=1)
    return Model(graph, _metadata(given["metadata"]))


@dataclass(slots=True)
class _Counted:
    nodes: int = 0


def _metadata(given: list[Field]) -> dict[str, str]:
    pairs = [read(each, _PAIR) for each in contents(given)]
    return {text(pair["key"]): text(pair["value"]) for pair in pairs}


def _graph(message: memoryview, counted: _Counted, *, depth: int) -> Graph:
    if depth > _DEEPEST:
        raise UnsafeModelError(f"graphs inside of graphs, {depth} deep")
    given = read(message, _GRAPH)
    tensors = {_tensor(each) for each in contents(given["tensors"])}
    for each in contents(given["values"]):
        _value(each)
    nodes = tuple(_node(each, counted, depth) for each in contents(given["nodes"]))
    inputs, outputs = (dict(map(_value, contents(given[name]))) for name in ("inputs", "outputs"))
    return Graph(nodes, inputs, outputs, frozenset(tensors))


def _node(message: memoryview, counted: _Counted, depth: int) -> Node:
    counted.nodes += 1
    if counted.nodes > MOST_NODES:
        raise UnsafeModelError(f"more than {MOST_NODES} nodes")
    given = read(message, _NODE)
    domain = text(given["domain"])
    bodies = []
    for each in contents(given["attributes"]):
        attribute = read(each, _ATTRIBUTE)
        if any(field.kind != FOUR_BYTES for field in attribute["float"]):
            raise UnsafeModelError("no whole ONNX file: an attribute's number of another kind")
        for tensor in contents(attribute["tensor"]):
            _tensor(tensor)
        bodies += [_graph(graph, counted, depth=depth + 1) for graph in contents(attribute["graph"])]
    return Node(
        text(given["operator"]),
        "" if domain == "ai.onnx" else domain,
        tuple(texts(given["inputs"])),
        tuple(texts(given["outputs"])),
        tuple(bodies),
    )


def _tensor(message: memoryview) -> str:
    """Check that a tensor's data are all there, inside of the file; its name."""
    given = read(message, _TENSOR)
    name = text(given["name"])
    if number(given["location"]) != 0:
        raise UnsafeModelError(f"the tensor {shown(name)} has its data in another file of this machine")
    item_bytes = _ITEM_BYTES.get(number(given["type"]))
    if item_bytes is None:
        raise UnsafeModelError(f"the tensor {shown(name)} is of type {number(given['type'])}, of no export")
    dims = numbers(given["dims"])
    if len(dims) > _MOST_DIMS or any(not 0 <= length < 1 << 31 for length in dims):
        raise UnsafeModelError(f"the tensor {shown(name)} has a shape that none has: {dims[:_MOST_DIMS]}")
    count = math.prod(dims)
    typed = [field for kind in _TYPED_DATA for field in given[kind]]
    if given["raw"]:
        num_bytes, needed = len(contents(given["raw"])[0]), count * item_bytes
        is_whole = num_bytes == needed and not typed
    else:
        # Each value takes a byte at least, whichever way it is written.
        num_bytes, needed = sum(len(field.whole) for field in typed), count
        is_whole = num_bytes >= needed
    if not is_whole:
        raise UnsafeModelError(
            f"the tensor {shown(name)} has {num_bytes} bytes of data, its shape says {needed}"
        )
    return name


def _value(message: memoryview) -> tuple[str, int]:
    """Give the name of an input or output, and its element type."""
    given = read(message, _VALUE)
    element = 0
    for kind in contents(given["type"]):
        types = read(kind, _TYPE)
        for sequence in contents(types["sequence"]):
            for inner in contents(read(sequence, _SEQUENCE)["element"]):
                read(inner, _TYPE)
        for tensor in contents(types["tensor"]):
            element = number(read(tensor, _TENSOR_TYPE)["type"])
    return text(given["name"]), element


def shown(name: str) -> str:
    """Give a name from a file as it may go to a terminal."""
    return ascii(name[:60])
