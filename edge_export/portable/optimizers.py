"""Optimizers over one flat vector of all parameters, in PyTorch's order of operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from edge_export.portable.graph import Graph
from gkt_core.config.edge_optimizer import EdgeOptimizer


@dataclass(frozen=True, slots=True)
class StateVector:
    """One flat vector of optimizer state, zero at the beginning."""

    name: str
    length: int
    dtype: str = "float32"


def state_vectors(settings: EdgeOptimizer, num_parameters: int) -> list[StateVector]:
    """What the optimizer keeps between steps."""
    if settings.name == "sgd":
        return [StateVector("momentum_buffer", num_parameters)] if settings.momentum else []
    names = ["first_moment", "second_moment"] + (["largest_second_moment"] if settings.amsgrad else [])
    return [StateVector(name, num_parameters) for name in names] + [StateVector("step", 1, "int64")]


def penalised(graph: Graph, settings: EdgeOptimizer, parameters: str, gradient: str) -> str:
    """The gradient with that of the L2 penalty, if the optimizer has one (AdamW decays on its own)."""
    if not settings.l2_penalty:
        return gradient
    return graph.add(gradient, graph.scale(parameters, settings.l2_penalty))


def update(
    graph: Graph,
    settings: EdgeOptimizer,
    parameters: str,
    gradient: str,
    learning_rate: str,
    state: dict[str, str],
) -> tuple[str, dict[str, str]]:
    """Add one optimizer step.

    Args:
        graph: Where nodes go.
        settings: Which optimizer.
        parameters: The flat parameters ``[P]``.
        gradient: Their gradient ``[P]``, see :func:`penalised`.
        learning_rate: A float32 scalar.
        state: The optimizer's vectors, by name.

    Returns:
        New parameters, and the new state by name.
    """
    if settings.name == "adamw":
        decay = graph.scale(learning_rate, settings.weight_decay)
        kept = graph.op("Sub", graph.constant(1.0), decay)
        parameters = graph.op("Mul", parameters, kept) if settings.weight_decay else parameters
    if settings.name == "sgd":
        direction, new_state = _sgd(graph, settings, gradient, state)
        change = graph.op("Mul", direction, learning_rate)
    else:
        change, new_state = _adam(graph, settings, gradient, learning_rate, state)
    return graph.op("Sub", parameters, change), new_state


def _sgd(
    graph: Graph, settings: EdgeOptimizer, gradient: str, state: dict[str, str]
) -> tuple[str, dict[str, str]]:
    new_state = {}
    if settings.momentum:
        # PyTorch's buffer begins as the first gradient; from zero it is the same without dampening.
        buffer = graph.add(graph.scale(state["momentum_buffer"], settings.momentum), gradient)
        new_state["momentum_buffer"] = buffer
        nesterov = settings.nesterov
        gradient = graph.add(gradient, graph.scale(buffer, settings.momentum)) if nesterov else buffer
    return gradient, new_state


def _adam(
    graph: Graph, settings: EdgeOptimizer, gradient: str, learning_rate: str, state: dict[str, str]
) -> tuple[str, dict[str, str]]:
    step = graph.add(state["step"], graph.constant([1], np.int64))
    new_state = {"step": step}
    squared = graph.op("Mul", gradient, gradient)
    for name, value, beta in (
        ("first_moment", gradient, settings.beta1),
        ("second_moment", squared, settings.beta2),
    ):
        kept = graph.scale(state[name], beta)
        new_state[name] = graph.add(kept, graph.scale(value, 1 - beta))
    second = new_state["second_moment"]
    if settings.amsgrad:
        second = graph.op("Max", state["largest_second_moment"], second)
        new_state["largest_second_moment"] = second
    # 1 - beta^step in float64, as PyTorch has it: in float32 the first steps would be off by 5e-5.
    exponent = graph.op("Cast", step, to=TensorProto.DOUBLE)
    one = graph.constant(1.0, np.float64)
    first_correction, second_correction = (
        graph.op("Sub", one, graph.op("Pow", graph.constant(beta, np.float64), exponent))
        for beta in (settings.beta1, settings.beta2)
    )
    rate = graph.op("Div", graph.op("Cast", learning_rate, to=TensorProto.DOUBLE), first_correction)
    rate = graph.op("Cast", rate, to=TensorProto.FLOAT)
    root = graph.op("Cast", graph.op("Sqrt", second_correction), to=TensorProto.FLOAT)
    deviation = graph.op("Div", graph.op("Sqrt", second), root)
    deviation = graph.op("Add", deviation, graph.constant(settings.eps))
    return graph.op("Mul", graph.op("Div", new_state["first_moment"], deviation), rate), new_state
