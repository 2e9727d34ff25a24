"""Convolution, and its three gradients in operators that ONNX Runtime is fast at."""

from __future__ import annotations

import numpy as np
from torch import nn

from edge_export.portable.graph import Graph
from edge_export.portable.layers import Step
from edge_export.portable.tape import Value


def convolution(step: Step, x: Value, name: str, module: nn.Conv2d, out_shape: tuple[int, ...]) -> Value:
    """A convolution of one group without dilation, zero padding."""
    graph = step.graph
    weight = step.parameters[f"{name}.weight"]
    bias = (step.parameters[f"{name}.bias"],) if module.bias is not None else ()
    attributes = conv_attributes(module)
    out = Value(graph.op("Conv", x.name, weight, *bias, **attributes), out_shape)

    def backward(gradient: str) -> None:
        found = weight_gradient(graph, x, Value(gradient, out_shape), module)
        step.tape.give_parameter(f"{name}.weight", found)
        if bias:
            step.tape.give_parameter(f"{name}.bias", graph.sum_images(gradient))
        if x.needs_gradient:
            step.tape.give(x, input_gradient(graph, x, Value(gradient, out_shape), weight, module))

    return step.tape.record(out, backward)


def conv_attributes(module: nn.Conv2d) -> dict[str, list[int]]:
    """Attributes of an ONNX ``Conv`` node."""
    height, width = _pair(module.padding)
    return {
        "kernel_shape": list(module.kernel_size),
        "strides": list(module.stride),
        "pads": [height, width, height, width],
    }


def input_gradient(graph: Graph, x: Value, gradient: Value, weight: str, module: nn.Conv2d) -> str:
    """A convolution of the output's gradient with the turned kernel; transposed where there is a stride.

    ONNX Runtime adds what comes in beside it (a residual path) in the same pass, which it does not for
    ``ConvTranspose``.
    """
    reach = [
        kernel - 1 - padding
        for kernel, padding in zip(module.kernel_size, _pair(module.padding), strict=True)
    ]
    if module.stride == (1, 1) and min(reach) >= 0:
        if module.kernel_size != (1, 1):
            last, before_first = graph.constant([-1, -1], np.int64), graph.constant([-(2**31)] * 2, np.int64)
            axes = graph.constant([2, 3], np.int64)
            weight = graph.op("Slice", weight, last, before_first, axes, last)
        turned = graph.op("Transpose", weight, perm=[1, 0, 2, 3])
        kernel_shape = list(module.kernel_size)
        # The bias is nothing but what ONNX Runtime's fusion of Conv and Add asks for.
        zero = graph.constant(np.zeros(x.shape[0]))
        return graph.op("Conv", gradient.name, turned, zero, kernel_shape=kernel_shape, pads=reach * 2)
    rest = [
        (size + 2 * padding - kernel) % stride
        for size, padding, kernel, stride in zip(
            x.shape[1:], _pair(module.padding), module.kernel_size, module.stride, strict=True
        )
    ]
    attributes = conv_attributes(module)
    return graph.op("ConvTranspose", gradient.name, weight, output_padding=rest, **attributes)


def weight_gradient(graph: Graph, x: Value, gradient: Value, module: nn.Conv2d) -> str:
    """``[out, in, kh, kw]``: for each place of the kernel, gradient times shifted input.

    Shifted slices and matrix products; a convolution with the gradient as kernel takes three times as long.
    """
    kernel_height, kernel_width = module.kernel_size
    out_channels, height, width = gradient.shape
    in_channels = x.shape[0]
    pad_height, pad_width = _pair(module.padding)
    down, right = module.stride
    source = x.name
    if pad_height or pad_width:
        pads = graph.constant([0, 0, pad_height, pad_width] * 2, np.int64)
        source = graph.op("Pad", source, pads, graph.constant(0.0))
    flat = graph.reshape(gradient.name, (0, out_channels, height * width))
    places = []
    for i in range(kernel_height):
        for j in range(kernel_width):
            shifted = source
            if (kernel_height, kernel_width, down, right) != (1, 1, 1, 1):
                shifted = graph.op(
                    "Slice",
                    source,
                    graph.constant([i, j], np.int64),
                    graph.constant([i + (height - 1) * down + 1, j + (width - 1) * right + 1], np.int64),
                    graph.constant([2, 3], np.int64),
                    graph.constant([down, right], np.int64),
                )
            pixels = graph.reshape(shifted, (0, in_channels, height * width))
            places.append(graph.reshape(outer_sum(graph, flat, pixels), (out_channels, in_channels, 1)))
    joined = places[0] if len(places) == 1 else graph.op("Concat", *places, axis=2)
    return graph.reshape(joined, (out_channels, in_channels, kernel_height, kernel_width))


def outer_sum(graph: Graph, left: str, right: str) -> str:
    """``sum over n of left[n] @ right[n]^T``: ``[N, A, P]`` and ``[N, B, P]`` to ``[A, B]``."""
    turned = graph.op("Transpose", right, perm=[0, 2, 1])
    return graph.sum(graph.op("MatMul", left, turned), (0,))


def _pair(padding: str | tuple[int, ...]) -> tuple[int, int]:
    assert not isinstance(padding, str)
    height, width = padding
    return height, width
