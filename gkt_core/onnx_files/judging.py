"""Judge an ONNX file of others before ONNX Runtime opens it: by name, or not at all."""

from __future__ import annotations

from pathlib import Path

from gkt_core.errors import UnsafeModelError
from gkt_core.onnx_files.operators import Operators
from gkt_core.onnx_files.reading import Graph, Model, read_model, shown

IMAGES = "images"
# No file of a network that a device trains is as large; protobuf itself ends at 2^31.
MOST_BYTES = 1 << 30
_METADATA = ("class_names", "gkt", "onnx.infer")
# Operators that mix many numbers into each: what is behind one is computed, and no copy.
_MIXES = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
# What only depends on how large its input is.
_OF_SHAPES = frozenset(("Shape", "Size"))


def check_model(data: bytes, name: str, operators: Operators) -> Model:
    """Refuse an ONNX file that does anything but arithmetic on its inputs.

    Args:
        data: The file.
        name: What to call it in errors.
        operators: Which it may have.

    Returns:
        What it is made of.

    Raises:
        UnsafeModelError: It reads other files, has other operators, functions, or is no ONNX file; says what.
    """
    try:
        return judged(data, operators)
    except UnsafeModelError as error:
        raise UnsafeModelError(
            f"{name} is not opened: {error}. Whoever runs the server must export again, or somebody between "
            "has changed it"
        ) from error


def judged(data: bytes, operators: Operators) -> Model:
    """Judge a file as :func:`check_model` does, for callers with a remedy of their own.

    Raises:
        UnsafeModelError: Says what is wrong, and neither whose it is nor what helps.
    """
    check_size(len(data))
    model = read_model(data)
    for node in model.graph.all_nodes():
        if node.operator not in operators.get(node.domain, ()):
            whose = f" of {shown(node.domain)}" if node.domain else ""
            raise UnsafeModelError(f"the operator {shown(node.operator)}{whose} is none of those allowed")
        if node.bodies and node.operator != "Scan":
            raise UnsafeModelError(f"a graph inside of the operator {shown(node.operator)}")
    for key in sorted(set(model.metadata) - set(_METADATA)):
        raise UnsafeModelError(f"metadata {shown(key)}, which no export has")
    return model


def check_size(num_bytes: int) -> None:
    """Refuse what is too large to be a network that a device trains.

    Raises:
        UnsafeModelError: It is.
    """
    if num_bytes > MOST_BYTES:
        raise UnsafeModelError(f"{num_bytes:,} bytes, allowed are {MOST_BYTES:,}")


def check_model_file(path: Path, operators: Operators, *, computes: str = "") -> bytes:
    """Read and judge an ONNX file of a bundle, and give the bytes that were judged: those are to be opened.

    Args:
        path: The file.
        operators: Which it may have.
        computes: An output that must not be the images again; see :func:`check_computed`.

    Raises:
        UnsafeModelError: See :func:`check_model`.
        OSError: It cannot be read.
    """
    try:
        check_size(path.stat().st_size)
    except UnsafeModelError as error:
        raise UnsafeModelError(f"{path} is not opened: {error}") from error
    data = path.read_bytes()
    model = check_model(data, str(path), operators)
    if computes:
        check_computed(model.graph, str(path), output=computes, source=IMAGES)
    return data


def check_computed(graph: Graph, name: str, *, output: str, source: str) -> None:
    """Refuse a graph whose output is its input again, cut, joined, scaled or otherwise rearranged.

    Every way from the input to the output has to lead through a layer that mixes pixels: a convolution or a
    matrix product.

    Raises:
        UnsafeModelError: There is another way; names its last operator.
    """
    makers = {each: node for node in graph.nodes for each in node.outputs if each}
    waiting, seen = [(output, "")], set()
    while waiting:
        each, behind = waiting.pop()
        if each == source:
            how = f" by way of {shown(behind)}" if behind else ""
            raise UnsafeModelError(
                f"{name} passes the private images through: its {output} are made of the "
                f"{source}{how} without any "
                "layer between; this device sends nothing to this server. Whoever runs it must "
                "export again, or "
                "somebody between has changed the file"
            )
        node = makers.get(each)
        if each in seen or node is None or node.operator in _OF_SHAPES:
            continue
        seen.add(each)
        if node.operator in _MIXES:
            continue
        if node.bodies:
            raise UnsafeModelError(
                f"{name}: its {output} are made inside of {shown(node.operator)}, of no export"
            )
        waiting += [(inner, node.operator) for inner in node.inputs]
