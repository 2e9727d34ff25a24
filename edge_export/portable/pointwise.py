"""A 1x1 convolution and its batch norm as one convolution, by the covariance of its input."""

from __future__ import annotations

from torch import nn

from edge_export.portable.convolution import outer_sum
from edge_export.portable.layers import Pointwise, Step
from edge_export.portable.tape import Value


def pointwise_norm(
    step: Step, x: Value, conv_name: str, norm_name: str, norm: nn.BatchNorm2d, out_channels: int
) -> Value:
    """``BN(W x)`` for ``W [out, in]``, without ever making ``W x`` before normalisation.

    With ``m`` and ``C`` mean and covariance of ``x`` over batch and pixels, mean and variance of ``W x`` are
    ``W m`` and ``diag(W C W^T)``.
    """
    graph, tape = step.graph, step.tape
    in_channels, height, width = x.shape
    matrix = graph.reshape(step.parameters[f"{conv_name}.weight"], (out_channels, in_channels))
    gamma, beta = step.parameters[f"{norm_name}.weight"], step.parameters[f"{norm_name}.bias"]
    count = step.count(x)
    x_flat = graph.reshape(x.name, (0, in_channels, height * width))
    mean, covariance = _moments(step, x, x_flat, count)

    def column(vector: str, length: int = out_channels) -> str:
        return graph.reshape(vector, (length, 1))

    def row_sums(values: str) -> str:
        return graph.sum(values, (1,))

    spread = graph.op("MatMul", matrix, covariance)
    out_mean = graph.reshape(graph.op("MatMul", matrix, column(mean, in_channels)), (out_channels,))
    # Rounding may leave a tiny negative number where a channel is constant.
    var = graph.op("Relu", row_sums(graph.op("Mul", spread, matrix)))
    step.update_statistics(norm_name, norm, out_mean, var, count)
    inverse = step.inverse_deviation(var, norm.eps)
    scale = graph.op("Mul", gamma, inverse)
    folded = graph.op("Mul", matrix, column(scale))
    shift = graph.op("Sub", beta, graph.op("Mul", scale, out_mean))
    kernel = graph.reshape(folded, (out_channels, in_channels, 1, 1))
    out = Value(graph.op("Conv", x.name, kernel, shift, kernel_shape=[1, 1]), (out_channels, height, width))
    step.pointwise[out.name] = Pointwise(x, kernel, shift)

    def backward(gradient: str) -> None:
        g_flat = graph.reshape(gradient, (0, out_channels, height * width))
        d_folded = outer_sum(graph, g_flat, x_flat, out_channels, in_channels)
        d_shift = graph.sum_images(gradient, out.shape)
        d_scale = graph.op(
            "Sub", row_sums(graph.op("Mul", d_folded, matrix)), graph.op("Mul", d_shift, out_mean)
        )
        tape.give_parameter(f"{norm_name}.bias", d_shift)
        tape.give_parameter(f"{norm_name}.weight", graph.op("Mul", d_scale, inverse))
        # scale = gamma / sqrt(var + eps), so d var = -1/2 d_scale * scale / (var + eps).
        inverse_var = graph.op("Mul", inverse, inverse)
        d_var = graph.scale(graph.op("Mul", graph.op("Mul", d_scale, scale), inverse_var), -0.5)
        d_mean = graph.op("Neg", graph.op("Mul", scale, d_shift))
        d_matrix = graph.add(
            graph.op("Mul", d_folded, column(scale)),
            graph.op("Mul", column(d_mean), graph.reshape(mean, (1, in_channels))),
            graph.op("Mul", spread, column(graph.scale(d_var, 2.0))),
        )
        shape = (out_channels, in_channels, 1, 1)
        tape.give_parameter(f"{conv_name}.weight", graph.reshape(d_matrix, shape))
        if not x.needs_gradient:
            return
        turned = graph.transpose(matrix)
        d_covariance = graph.op("MatMul", turned, graph.op("Mul", matrix, column(d_var)))
        d_in_mean = graph.op("MatMul", turned, column(d_mean))
        twice = graph.scale(d_covariance, 2.0)
        centre = graph.op("MatMul", twice, column(mean, in_channels))
        offset = graph.op("Div", graph.op("Sub", d_in_mean, centre), count)
        through = graph.reshape(graph.transpose(folded), (in_channels, out_channels, 1, 1))
        within = graph.reshape(graph.op("Div", twice, count), (in_channels, in_channels, 1, 1))
        offset = graph.reshape(offset, (in_channels,))
        tape.give(
            x,
            graph.add(
                graph.op("Conv", x.name, within, offset, kernel_shape=[1, 1]),
                graph.op("Conv", gradient, through, kernel_shape=[1, 1]),
            ),
        )

    return tape.record(out, backward)


def add_pointwise(step: Step, x: Value, y: Value) -> str | None:
    """The sum of two such convolutions as one, over the channels of both inputs; None if it cannot be.

    A block whose shortcut projects thus makes its wide output in one pass, not in three. The way back stays
    apart: keeping the stacked inputs for it would save 1 ms in 120, for 13 MB of 200.
    """
    graph = step.graph
    parts = [step.pointwise.get(value.name) for value in (x, y)]
    if parts[0] is None or parts[1] is None or parts[0] == parts[1]:
        return None
    first, second = parts[0], parts[1]
    stacked = graph.op("Concat", first.source.name, second.source.name, axis=1)
    kernel = graph.op("Concat", first.kernel, second.kernel, axis=1)
    shift = graph.add(first.shift, second.shift)
    return graph.op("Conv", stacked, kernel, shift, kernel_shape=[1, 1])


def _moments(step: Step, x: Value, x_flat: str, count: str) -> tuple[str, str]:
    """Mean ``[in]`` and covariance ``[in, in]``; made once for all convolutions of one input."""
    graph = step.graph
    if x.name not in step.covariances:
        channels = x.shape[0]
        mean = graph.op("Div", graph.sum_images(x.name, x.shape), count)
        products = graph.op("Div", outer_sum(graph, x_flat, x_flat, channels, channels), count)
        square = graph.op("Mul", graph.reshape(mean, (channels, 1)), graph.reshape(mean, (1, channels)))
        step.covariances[x.name] = mean, graph.op("Sub", products, square)
    return step.covariances[x.name]


def folded_norm(
    step: Step, x: Value, conv_name: str, norm_name: str, norm: nn.BatchNorm2d, weight_shape: tuple[int, ...]
) -> tuple[str, str]:
    """Kernel and bias of a convolution followed by batch norm with running statistics (inference)."""
    graph = step.graph
    inverse = step.inverse_deviation(step.statistics[f"{norm_name}.running_var"], norm.eps)
    scale = graph.op("Mul", step.parameters[f"{norm_name}.weight"], inverse)
    kernel = graph.op(
        "Mul",
        step.parameters[f"{conv_name}.weight"],
        graph.reshape(scale, (weight_shape[0], *([1] * (len(weight_shape) - 1)))),
    )
    mean = step.statistics[f"{norm_name}.running_mean"]
    shift = graph.op("Sub", step.parameters[f"{norm_name}.bias"], graph.op("Mul", scale, mean))
    return kernel, shift
