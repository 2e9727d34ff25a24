"""A convolution whose filters have mirrors: one convolution with the mirrored kernels beside the others."""

from __future__ import annotations

import numpy as np

from edge_export.portable.convolution import (
    conv_attributes,
    first_means,
    forward,
    input_gradient,
    weight_gradient,
)
from edge_export.portable.graph import Graph
from edge_export.portable.layers import Step
from edge_export.portable.tape import Value
from gkt_core.nn.resnet import MirroredConv


def mirrored_conv(
    step: Step,
    x: Value,
    name: str,
    module: MirroredConv,
    out_shape: tuple[int, ...],
    *,
    is_centred: bool = False,
) -> Value:
    """What :class:`MirroredConv` gives; the arguments are those of a convolution's."""
    graph = step.graph
    channels, pixels = out_shape[0], (out_shape[1] // 2, out_shape[2])
    shape = (channels, module.in_channels, *module.kernel_size)
    kernel = _with_mirrors(graph, step.parameters[f"{name}.weight"], shape)
    centre = shift = None
    if is_centred:
        pairs = graph.reshape(first_means(graph, x, kernel, module), (channels, 2))
        # One of both: they share the batch norm behind.
        centre = graph.op("ReduceMean", pairs, axes=[1], keepdims=0)
        shift = graph.op("Neg", _twice(graph, centre, channels))
    wide = forward(graph, x.shape, x.name, kernel, shift, module)
    out = Value(graph.reshape(wide, (0, *out_shape)), out_shape, centre=centre)

    def backward(gradient: str) -> None:
        outer = Value(graph.reshape(gradient, (0, 2 * channels, *pixels)), (2 * channels, *pixels))
        pairs = graph.reshape(weight_gradient(graph, x, outer, module), (channels, 2, *shape[1:]))
        own, mirror = graph.multi_op("Split", 2, pairs, graph.constant([1, 1], np.int64), axis=1)
        own, mirror = graph.reshape(own, shape), _turned(graph, graph.reshape(mirror, shape))
        step.tape.give_parameter(f"{name}.weight", graph.add(own, mirror))
        if x.needs_gradient:
            step.tape.give(x, input_gradient(graph, x, outer, kernel, module))

    return step.tape.record(out, backward)


def mirrored_predict(
    step: Step, x: Value, kernel: str, shift: str, module: MirroredConv, out_shape: tuple[int, ...]
) -> Value:
    """The same with kernel and bias that have the batch norm behind it in them."""
    graph, channels = step.graph, out_shape[0]
    both = _with_mirrors(graph, kernel, (channels, module.in_channels, *module.kernel_size))
    wide = graph.op("Conv", x.name, both, _twice(graph, shift, channels), **conv_attributes(module))
    return Value(graph.reshape(wide, (0, *out_shape)), out_shape)


def mirrored_halves(step: Step, x: Value, out_shape: tuple[int, ...]) -> Value:
    """``[N, C, 2 H, W]`` as ``[N, 2 C, H, W]``."""
    graph, channels, pixels = step.graph, x.shape[0], x.shape[1] * x.shape[2] // 2

    def exchanged(value: str, first: int, second: int, shape: tuple[int, ...]) -> str:
        cut = graph.reshape(value, (0, first, second, pixels))
        return graph.reshape(graph.op("Transpose", cut, perm=[0, 2, 1, 3]), (0, *shape))

    out = Value(exchanged(x.name, channels, 2, out_shape), out_shape, x.needs_gradient)

    def backward(gradient: str) -> None:
        step.tape.give(x, exchanged(gradient, 2, channels, x.shape))

    return step.tape.record(out, backward)


def _with_mirrors(graph: Graph, weight: str, shape: tuple[int, ...]) -> str:
    """``[2 C, in, kh, kw]``: each kernel and, behind it, its mirror."""
    own, mirror = (
        graph.reshape(each, (shape[0], 1, *shape[1:])) for each in (weight, _turned(graph, weight))
    )
    return graph.reshape(graph.op("Concat", own, mirror, axis=1), (2 * shape[0], *shape[1:]))


def _turned(graph: Graph, weight: str) -> str:
    """With the columns of its kernels the other way round."""
    last, before_first = graph.constant([-1], np.int64), graph.constant([-(2**31)], np.int64)
    return graph.op("Slice", weight, last, before_first, graph.constant([3], np.int64), last)


def _twice(graph: Graph, vector: str, channels: int) -> str:
    """``[2 C]``: each value twice."""
    column = graph.reshape(vector, (channels, 1))
    return graph.reshape(graph.op("Concat", column, column, axis=1), (2 * channels,))
