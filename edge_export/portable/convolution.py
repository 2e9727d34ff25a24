"""Convolution, and its three gradients in operators that ONNX Runtime is fast at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from edge_export.portable.graph import Graph
from edge_export.portable.layers import Step
from edge_export.portable.tape import Value

# With fewer, there is too little to multiply for a transposed convolution to be the faster one.
_MANY_CHANNELS = 8


def convolution(
    step: Step,
    x: Value,
    name: str,
    module: nn.Conv2d,
    out_shape: tuple[int, ...],
    *,
    is_centred: bool = False,
) -> Value:
    """A convolution of one group without dilation, zero padding; ``out_shape`` is ``(C, H, W)``.

    ``is_centred`` takes from each channel its mean over the first image, for a batch norm behind it:
    variances are then sums of squares without cancellation, and no pass over memory centres.
    """
    graph = step.graph
    weight = step.parameters[f"{name}.weight"]
    bias = step.parameters[f"{name}.bias"] if module.bias is not None else None
    centre, shift = None, bias
    if is_centred:
        own = first_means(graph, x, weight, module)
        shift = graph.op("Neg", own)
        # A bias is nothing to the batch norm, but a part of its running mean.
        centre = graph.add(own, bias) if bias else own
    out = Value(forward(graph, x.shape, x.name, weight, shift, module), out_shape, centre=centre)

    def backward(gradient: str) -> None:
        outer = Value(gradient, out_shape)
        has_columns = module.stride == (1, 1) and module.kernel_size[1] > 1 and x.needs_gradient
        if has_columns:
            for_weight, through = _gradients_by_columns(graph, x, outer, weight, module)
        else:
            for_weight = weight_gradient(graph, x, outer, module)
            through = input_gradient(graph, x, outer, weight, module) if x.needs_gradient else ""
        step.tape.give_parameter(f"{name}.weight", for_weight)
        if bias:
            step.tape.give_parameter(f"{name}.bias", graph.sum_images(gradient, out_shape))
        if x.needs_gradient:
            step.tape.give(x, through)

    return step.tape.record(out, backward)


def first_means(graph: Graph, x: Value, weight: str, module: nn.Conv2d) -> str:
    """``[C]``: the mean of each channel over the first image."""
    first = graph.op("Slice", x.name, *(graph.constant([value], np.int64) for value in (0, 1, 0)))
    plain = forward(graph, x.shape, first, weight, None, module)
    return graph.op("ReduceMean", plain, axes=[0, 2, 3], keepdims=0)


def forward(
    graph: Graph, shape: tuple[int, ...], x: str, weight: str, bias: str | None, module: nn.Conv2d
) -> str:
    """The convolution itself, in whichever operators are the faster ones; ``shape`` is the input's."""
    if not _is_faster_transposed(module, shape[0]):
        return graph.op("Conv", x, weight, *((bias,) if bias else ()), **conv_attributes(module))
    last, before_first = graph.constant([-1, -1], np.int64), graph.constant([-(2**31)] * 2, np.int64)
    turned = graph.op("Slice", weight, last, before_first, graph.constant([2, 3], np.int64), last)
    turned = graph.op("Transpose", turned, perm=[1, 0, 2, 3])
    crop = [
        kernel - 1 - padding
        for kernel, padding in zip(module.kernel_size, _pair(module.padding), strict=True)
    ]
    return _transposed(graph, x, turned, bias, module, crop)


def _is_faster_transposed(module: nn.Conv2d, in_channels: int) -> bool:
    """Whether ONNX Runtime is faster with a transposed convolution of the turned kernel, cut to size.

    It multiplies once and adds up, where ``Conv`` copies each pixel nine times before it multiplies: 4.7 ms
    against 6.0 for 64 images of 16 channels. Padding inside ``ConvTranspose`` would take that away.
    """
    fits = all(
        padding < kernel for padding, kernel in zip(_pair(module.padding), module.kernel_size, strict=True)
    )
    return module.kernel_size != (1, 1) and module.stride == (1, 1) and fits and in_channels >= _MANY_CHANNELS


def _transposed(
    graph: Graph, x: str, weight: str, bias: str | None, module: nn.Conv2d, crop: Sequence[int]
) -> str:
    kernel_shape = list(module.kernel_size)
    wide = graph.op("ConvTranspose", x, weight, *((bias,) if bias else ()), kernel_shape=kernel_shape)
    return _cut(graph, wide, crop)


def _cut(graph: Graph, wide: str, crop: Sequence[int]) -> str:
    """Cut rows and columns off on either side."""
    if not any(crop):
        return wide
    axes = [axis for axis, cut in enumerate(crop, start=2) if cut]
    start = graph.constant([cut for cut in crop if cut], np.int64)
    end = graph.constant([-cut for cut in crop if cut], np.int64)
    return graph.op("Slice", wide, start, end, graph.constant(axes, np.int64))


def conv_attributes(module: nn.Conv2d) -> dict[str, list[int]]:
    """Attributes of an ONNX ``Conv`` node."""
    height, width = _pair(module.padding)
    return {
        "kernel_shape": list(module.kernel_size),
        "strides": list(module.stride),
        "pads": [height, width, height, width],
    }


def input_gradient(graph: Graph, x: Value, gradient: Value, weight: str, module: nn.Conv2d) -> str:
    """The transposed convolution.

    Where the kernel is one pixel it is written as a convolution: ONNX Runtime adds what comes in beside it
    (a residual path) in the same pass, which it does not for ``ConvTranspose``.
    """
    padding = _pair(module.padding)
    if (module.kernel_size, module.stride, padding) == ((1, 1), (1, 1), (0, 0)):
        turned = graph.op("Transpose", weight, perm=[1, 0, 2, 3])
        # The bias is nothing but what ONNX Runtime's fusion of Conv and Add asks for.
        zero = graph.constant(np.zeros(x.shape[0]))
        return graph.op("Conv", gradient.name, turned, zero, kernel_shape=[1, 1])
    if module.stride == (1, 1):
        return _transposed(graph, gradient.name, weight, None, module, padding)
    rest = [
        (size + 2 * padded - kernel) % stride
        for size, padded, kernel, stride in zip(
            x.shape[1:], padding, module.kernel_size, module.stride, strict=True
        )
    ]
    attributes = conv_attributes(module)
    return graph.op("ConvTranspose", gradient.name, weight, output_padding=rest, **attributes)


def _gradients_by_columns(
    graph: Graph, x: Value, gradient: Value, weight: str, module: nn.Conv2d
) -> tuple[str, str]:
    """Gradients by the weight and by the input, without stride, from the gradient shifted sideways.

    One copy of the gradient for each column of the kernel serves both: the transposed convolution then has a
    kernel of one column, so that it adds up three values for a pixel and not nine (a fifth faster).
    """
    kernel_height, kernel_width = module.kernel_size
    out_channels, out_height, out_width = gradient.shape
    in_channels, height, width = x.shape
    pad_height, pad_width = _pair(module.padding)
    lefts = [j - pad_width for j in range(kernel_width)]
    columns = [_padded(graph, gradient.name, (0, left), (0, width - out_width - left)) for left in lefts]
    stacked, num_rows = graph.op("Concat", *columns, axis=1), kernel_width * out_channels
    turned = graph.op("Transpose", weight, perm=[3, 0, 1, 2])
    turned = graph.reshape(turned, (num_rows, in_channels, kernel_height, 1))
    wide = graph.op("ConvTranspose", stacked, turned, kernel_shape=[kernel_height, 1])
    through = _cut(graph, wide, (pad_height, 0))
    flat = graph.reshape(stacked, (0, num_rows, out_height * width))
    rows = []
    for i in range(kernel_height):
        above = pad_height - i
        moved = _padded(graph, x.name, (above, 0), (out_height - height - above, 0))
        pixels = graph.reshape(moved, (0, in_channels, out_height * width))
        rows.append(outer_sum(graph, flat, pixels, num_rows, in_channels))
    joined = rows[0] if kernel_height == 1 else graph.op("Concat", *rows, axis=0)
    shape = (kernel_height, kernel_width, out_channels, in_channels)
    return graph.op("Transpose", graph.reshape(joined, shape), perm=[2, 3, 0, 1]), through


def weight_gradient(graph: Graph, x: Value, gradient: Value, module: nn.Conv2d) -> str:
    """``[out, in, kh, kw]``: for each place of the kernel, gradient times shifted input.

    Shifted copies and matrix products; a convolution with the gradient as kernel takes three times as long.
    """
    kernel_height, kernel_width = module.kernel_size
    products = _shifted_products if module.stride == (1, 1) else _strided_products
    shape = (kernel_height, kernel_width, x.shape[0], gradient.shape[0])
    joined = graph.reshape(products(graph, x, gradient, module), shape)
    return graph.op("Transpose", joined, perm=[3, 2, 0, 1])


def _shifted_products(graph: Graph, x: Value, gradient: Value, module: nn.Conv2d) -> str:
    """``[kh * kw * in, out]`` without stride.

    The input is shifted sideways only, once for each column of the kernel, and the gradient up and down
    only: fewer copies than places, and products of more rows, which ONNX Runtime is better at.
    """
    kernel_height, kernel_width = module.kernel_size
    out_channels, out_height, out_width = gradient.shape
    in_channels, height, width = x.shape
    pad_height, pad_width = _pair(module.padding)
    columns = []
    for j in range(kernel_width):
        left = pad_width - j
        columns.append(_padded(graph, x.name, (0, left), (0, out_width - width - left)))
    stacked = columns[0] if kernel_width == 1 else graph.op("Concat", *columns, axis=1)
    num_pixels, num_rows = height * out_width, kernel_width * in_channels
    flat = graph.reshape(stacked, (0, num_rows, num_pixels))
    rows = []
    for i in range(kernel_height):
        above = i - pad_height
        moved = _padded(graph, gradient.name, (above, 0), (height - out_height - above, 0))
        pixels = graph.reshape(moved, (0, out_channels, num_pixels))
        rows.append(outer_sum(graph, flat, pixels, num_rows, out_channels))
    return rows[0] if kernel_height == 1 else graph.op("Concat", *rows, axis=0)


def _padded(graph: Graph, value: str, before: tuple[int, int], after: tuple[int, int]) -> str:
    """With so many rows and columns of zeros more, or fewer where negative."""
    if not any(before + after):
        return value
    pads = graph.constant([0, 0, *before, 0, 0, *after], np.int64)
    return graph.op("Pad", value, pads, graph.constant(0.0))


def _strided_products(graph: Graph, x: Value, gradient: Value, module: nn.Conv2d) -> str:
    """``[kh * kw * in, out]`` with a stride: each place of the kernel by itself."""
    kernel_height, kernel_width = module.kernel_size
    out_channels, height, width = gradient.shape
    in_channels = x.shape[0]
    down, right = module.stride
    source = _padded(graph, x.name, _pair(module.padding), _pair(module.padding))
    flat = graph.reshape(gradient.name, (0, out_channels, height * width))
    places = []
    for i in range(kernel_height):
        for j in range(kernel_width):
            shifted = graph.op(
                "Slice",
                source,
                graph.constant([i, j], np.int64),
                graph.constant([i + (height - 1) * down + 1, j + (width - 1) * right + 1], np.int64),
                graph.constant([2, 3], np.int64),
                graph.constant([down, right], np.int64),
            )
            pixels = graph.reshape(shifted, (0, in_channels, height * width))
            places.append(outer_sum(graph, pixels, flat, in_channels, out_channels))
    return places[0] if len(places) == 1 else graph.op("Concat", *places, axis=0)


def outer_sum(graph: Graph, left: str, right: str, left_rows: int, right_rows: int) -> str:
    """``sum over n of left[n] @ right[n]^T``: ``[N, A, P]`` and ``[N, B, P]`` to ``[A, B]``.

    The one with more rows goes to the left, where they cost ONNX Runtime less.
    """
    if left_rows < right_rows:
        return graph.transpose(outer_sum(graph, right, left, right_rows, left_rows))
    turned = graph.op("Transpose", right, perm=[0, 2, 1])
    return graph.sum(graph.op("MatMul", left, turned), (0,))


def _pair(padding: str | tuple[int, ...]) -> tuple[int, int]:
    assert not isinstance(padding, str)
    height, width = padding
    return height, width
