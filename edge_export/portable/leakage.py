"""The penalty on leakage in a portable step: distance correlation of images and features, and its gradient.

:func:`gkt_core.nn.losses.distance_correlation` in ONNX operators. It compares all pairs of a batch, so it is
outside of the chunks that images go through; matrices of pairs have a leading axis of one, which tells them
from values with a row for each image.
"""

from __future__ import annotations

import math

from edge_export.portable.graph import Graph
from edge_export.portable.tape import Value
from gkt_core.nn.losses import DISTANCE_FLOOR, SAME_IMAGE, STEEP

_FLOAT = 1


def leakage_loss(graph: Graph, images: Value, features: Value, weight: float) -> tuple[str, str]:
    """Add ``weight`` times the squared distance correlation.

    Returns:
        The loss, a scalar, and its gradient by the features ``[N, C, H, W]``.
    """
    _, apart = _squares_apart(graph, images)
    rows, others = _squares_apart(graph, features)
    far = graph.op("Sub", apart, graph.scale(_mean(graph, apart), SAME_IMAGE))
    zero, one = graph.constant(0.0), graph.constant(1.0)
    differs = graph.op("Clip", graph.scale(far, STEEP), zero, one)
    floor = graph.constant(DISTANCE_FLOOR)
    distances = graph.op("Sqrt", graph.add(others, floor))
    theirs = _centred(graph, graph.op("Mul", graph.op("Sqrt", graph.add(apart, floor)), differs))
    ours = _centred(graph, graph.op("Mul", distances, differs))
    shared, own, other = (
        _mean(graph, graph.op("Mul", *pair)) for pair in ((ours, theirs), (ours, ours), (theirs, theirs))
    )
    square = graph.add(graph.op("Mul", own, other), floor)
    size = graph.op("Sqrt", square)
    correlation = graph.op("Div", shared, size)
    # By a distance: (B - shared * other / size^2 * A) / (N^2 * size), with A and B what is centred.
    pull = graph.op("Mul", graph.op("Div", graph.op("Mul", shared, other), square), ours)
    count = graph.op("Cast", graph.op("Size", distances), to=_FLOAT)
    by_distance = graph.op("Div", graph.op("Sub", theirs, pull), graph.op("Mul", size, count))
    ratio = graph.op("Mul", graph.op("Div", by_distance, distances), differs)
    sums = graph.sum(ratio, (2,), keep=True)
    moved = graph.op("Sub", graph.op("Mul", sums, rows), graph.op("MatMul", ratio, rows))
    loss = graph.reshape(graph.scale(correlation, weight), ())
    return loss, graph.batch(graph.scale(moved, 2 * weight), features.name, features.shape)


def _squares_apart(graph: Graph, value: Value) -> tuple[str, str]:
    """Give values from their mean, ``[1, N, D]``, and squared distances of all pairs, ``[1, N, N]``."""
    rows = graph.reshape(value.name, (1, -1, math.prod(value.shape)))
    rows = graph.op("Sub", rows, graph.op("ReduceMean", rows, axes=[1], keepdims=1))
    squares = graph.sum(graph.op("Mul", rows, rows), (2,), keep=True)
    products = graph.op("MatMul", rows, _turned(graph, rows))
    both = graph.add(squares, _turned(graph, squares))
    return rows, graph.op("Relu", graph.op("Sub", both, graph.scale(products, 2.0)))


def _centred(graph: Graph, distances: str) -> str:
    by_row = graph.op("ReduceMean", distances, axes=[2], keepdims=1)
    by_column = graph.op("ReduceMean", distances, axes=[1], keepdims=1)
    apart = graph.op("Sub", graph.op("Sub", distances, by_row), by_column)
    return graph.add(apart, _mean(graph, distances))


def _mean(graph: Graph, pairs: str) -> str:
    return graph.op("ReduceMean", pairs, axes=[1, 2], keepdims=1)


def _turned(graph: Graph, matrix: str) -> str:
    return graph.op("Transpose", matrix, perm=[0, 2, 1])
