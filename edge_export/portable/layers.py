"""The layers of a step, each with its way back: convolution, batch norm, ReLU, pooling, linear.

Batch norm of an expanding 1x1 convolution never sees its wide output: mean and variance of ``W x`` follow
from mean and covariance of ``x`` (``mean = W m``, ``var = diag(W C W^T)``), which is exact algebra. So the
normalisation folds into the convolution's weights, forward and backward.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import nn

from edge_export.portable.graph import Graph
from edge_export.portable.tape import Tape, Value

# Up to this many, a matrix product over channels costs less than the passes over memory that it saves.
_FEW_CHANNELS = 16


@dataclass(frozen=True, slots=True)
class Pointwise:
    """A 1x1 convolution with its batch norm in it: input, kernel ``[out, in, 1, 1]`` and bias ``[out]``."""

    source: Value
    kernel: str
    shift: str


@dataclass
class Step:
    """What the layers of one graph share.

    Attributes:
        graph: Where nodes go.
        tape: The way back.
        parameters: Graph names of the weights, by PyTorch name.
        statistics: Graph names of the running statistics, by PyTorch name.
        training: Batch statistics if true, running ones if not.
        batch_size: Graph name of the batch size, a float32 scalar; training only.
        next_statistics: Running statistics after this batch.
        covariances: Mean and covariance of values that several convolutions share.
        pointwise: How values were made that are 1x1 convolutions, by name.
    """

    graph: Graph
    tape: Tape
    parameters: dict[str, str]
    statistics: dict[str, str]
    training: bool
    batch_size: str = ""
    next_statistics: dict[str, str] = field(default_factory=dict)
    covariances: dict[str, tuple[str, str]] = field(default_factory=dict)
    pointwise: dict[str, Pointwise] = field(default_factory=dict)

    def count(self, value: Value) -> str:
        """Pixels of the whole batch that one channel of ``value`` has, a float32 scalar."""
        pixels = float(np.prod(value.shape[1:]))
        return self.graph.op("Mul", self.batch_size, self.graph.constant(pixels))

    def update_statistics(self, name: str, module: nn.BatchNorm2d, mean: str, var: str, count: str) -> None:
        """Fold mean and (unbiased) variance of this batch into the running statistics, as PyTorch does."""
        graph = self.graph
        momentum = float(module.momentum or 0.0)
        others = graph.op("Sub", count, graph.constant(1.0))
        unbiased = graph.op("Mul", var, graph.op("Div", count, others))
        for kind, value in (("running_mean", mean), ("running_var", unbiased)):
            old = graph.scale(self.statistics[f"{name}.{kind}"], 1 - momentum)
            self.next_statistics[f"{name}.{kind}"] = graph.add(old, graph.scale(value, momentum))

    def inverse_deviation(self, var: str, eps: float) -> str:
        """``1 / sqrt(var + eps)``."""
        shifted = self.graph.op("Add", var, self.graph.constant(eps))
        return self.graph.op("Reciprocal", self.graph.op("Sqrt", shifted))


def relu(step: Step, x: Value) -> Value:
    """``max(x, 0)``."""
    graph = step.graph
    out = Value(graph.op("Relu", x.name), x.shape, x.needs_gradient)

    def backward(gradient: str) -> None:
        # 1 where the output is positive, in one pass: Greater and Cast take twice as long.
        mask = graph.op("HardSigmoid", out.name, alpha=1e38, beta=0.0)
        step.tape.give(x, graph.op("Mul", gradient, mask))

    return step.tape.record(out, backward, takes_narrow=True)


def add(step: Step, x: Value, y: Value, total: str | None = None) -> Value:
    """``x + y`` of equal shape; ``total`` is the sum if it is there already."""
    out = Value(total or step.graph.add(x.name, y.name), x.shape, x.needs_gradient or y.needs_gradient)

    def backward(gradient: str) -> None:
        step.tape.give(x, gradient)
        step.tape.give(y, gradient)

    return step.tape.record(out, backward)


def mean_pixels(step: Step, x: Value) -> Value:
    """Global average pooling: ``[N, C, H, W]`` to ``[N, C]``."""
    graph = step.graph
    channels, height, width = x.shape
    if not step.training:
        # The one kind of mean that ONNX Runtime takes in the blocked layout of its convolutions.
        pooled = graph.op("GlobalAveragePool", x.name)
        return Value(graph.reshape(pooled, (0, channels)), (channels,), x.needs_gradient)
    # As a sum, for which ONNX Runtime has a fast way that its mean lacks.
    pixels = graph.sum(x.name, (2, 3))
    out = Value(graph.scale(pixels, 1 / (height * width)), (channels,), x.needs_gradient)

    def backward(gradient: str) -> None:
        narrow = graph.reshape(graph.scale(gradient, 1 / (height * width)), (0, channels, 1, 1))
        step.tape.give(x, narrow, narrow=True)

    return step.tape.record(out, backward)


def linear(step: Step, x: Value, name: str, module: nn.Linear) -> Value:
    """``x W^T + b``."""
    graph = step.graph
    weight, bias = step.parameters[f"{name}.weight"], step.parameters[f"{name}.bias"]
    out = Value(graph.op("Gemm", x.name, weight, bias, transB=1), (module.out_features,))

    def backward(gradient: str) -> None:
        step.tape.give_parameter(f"{name}.weight", graph.op("Gemm", gradient, x.name, transA=1))
        step.tape.give_parameter(f"{name}.bias", graph.sum(gradient, (0,)))
        if x.needs_gradient:
            step.tape.give(x, graph.op("MatMul", gradient, weight))

    return step.tape.record(out, backward)


def batch_norm(step: Step, x: Value, name: str, module: nn.BatchNorm2d) -> Value:
    """Normalise with the statistics of the batch."""
    graph = step.graph
    channels = x.shape[0]
    gamma, beta = step.parameters[f"{name}.weight"], step.parameters[f"{name}.bias"]

    def wide(vector: str) -> str:
        return graph.reshape(vector, (channels, 1, 1))

    if not step.training:
        inverse = step.inverse_deviation(step.statistics[f"{name}.running_var"], module.eps)
        scale = graph.op("Mul", gamma, inverse)
        shift = graph.op("Sub", beta, graph.op("Mul", scale, step.statistics[f"{name}.running_mean"]))
        return Value(graph.add(graph.op("Mul", x.name, wide(scale)), wide(shift)), x.shape)
    count = step.count(x)
    # What remains of the mean: the convolution before has taken nearly all of it.
    mean = graph.op("Div", graph.sum_images(x.name, x.shape), count)
    squares = graph.op("Div", _inner(graph, x.name, x.name, x.shape), count)
    # Rounding may leave a tiny negative number where a channel is constant.
    var = graph.op("Relu", graph.op("Sub", squares, graph.op("Mul", mean, mean)))
    whole_mean = graph.add(mean, x.centre) if x.centre else mean
    step.update_statistics(name, module, whole_mean, var, count)
    inverse = step.inverse_deviation(var, module.eps)
    scale = graph.op("Mul", gamma, inverse)
    shift = graph.op("Sub", beta, graph.op("Mul", scale, mean))
    out = Value(_affine(graph, x.name, scale, shift, channels), x.shape)

    def backward(gradient: str) -> None:
        total = graph.sum_images(gradient, x.shape)
        around = graph.op("Sub", _inner(graph, gradient, x.name, x.shape), graph.op("Mul", mean, total))
        along = graph.op("Mul", around, inverse)
        step.tape.give_parameter(f"{name}.bias", total)
        step.tape.give_parameter(f"{name}.weight", along)
        if not x.needs_gradient:
            return
        # scale * (gradient - mean(gradient) - normalised * mean(gradient * normalised))
        slope = graph.op("Div", graph.op("Mul", along, inverse), count)
        back = graph.op("Neg", graph.op("Mul", scale, slope))
        offset = graph.op("Mul", scale, graph.op("Div", total, count))
        offset = graph.op("Neg", graph.op("Add", offset, graph.op("Mul", back, mean)))
        rest = _affine(graph, x.name, back, offset, channels)
        step.tape.give(x, graph.add(rest, graph.op("Mul", gradient, wide(scale))))

    return step.tape.record(out, backward)


def _inner(graph: Graph, left: str, right: str, shape: tuple[int, ...]) -> str:
    """``[C]``: the product of two values, summed over batch and pixels."""
    channels, height, width = shape
    if channels > _FEW_CHANNELS:
        return graph.sum_images(graph.op("Mul", left, right), shape)
    flat = [graph.reshape(value, (0, channels, height * width)) for value in (left, right)]
    products = graph.sum(graph.op("MatMul", flat[0], graph.op("Transpose", flat[1], perm=[0, 2, 1])), (0,))
    return graph.sum(graph.op("Mul", products, graph.constant(np.eye(channels))), (1,))


def _affine(graph: Graph, value: str, scale: str, shift: str, channels: int) -> str:
    """``scale * value + shift`` for each channel.

    As a batch norm of given statistics, mean 0 and variance 1: the one operator that does both in one pass.
    """
    none, one = graph.constant(np.zeros(channels)), graph.constant(np.ones(channels))
    return graph.op("BatchNormalization", value, scale, shift, none, one, epsilon=0.0)
