"""``train_step.onnx`` and ``predict.onnx``: forward, Eq. 7, backward, optimizer and running statistics.

State travels as a few flat vectors: all parameters, all running statistics, and what the optimizer keeps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from edge_export.portable.chunks import in_chunks
from edge_export.portable.graph import Graph
from edge_export.portable.layers import Step
from edge_export.portable.leakage import leakage_loss
from edge_export.portable.network import PortableNetwork
from edge_export.portable.optimizers import StateVector, penalised, state_vectors, update
from edge_export.portable.tape import Tape, Value
from gkt_core.bundle.portable_state import PARAMETERS, STATISTICS, PortableState, VectorSlot
from gkt_core.config.edge_optimizer import EdgeOptimizer


def state_layout(state: dict[str, Tensor], settings: EdgeOptimizer) -> PortableState:
    """Where each parameter and running statistic lies in the flat vectors, in PyTorch's order."""
    slots: dict[str, VectorSlot] = {}
    lengths = {PARAMETERS: 0, STATISTICS: 0}
    for name, value in state.items():
        vector = STATISTICS if ".running_" in name else PARAMETERS
        slots[name] = VectorSlot(vector, lengths[vector], list(value.shape))
        lengths[vector] += value.numel()
    vectors = [StateVector(name, length) for name, length in lengths.items()]
    vectors += state_vectors(settings, lengths[PARAMETERS])
    return PortableState(
        vectors={vector.name: vector.length for vector in vectors},
        dtypes={vector.name: vector.dtype for vector in vectors},
        slots=slots,
    )


def initial_vectors(state: dict[str, Tensor], layout: PortableState) -> dict[str, NDArray[np.generic]]:
    """The flat vectors of a network that has not trained yet."""
    vectors: dict[str, NDArray[np.generic]] = {
        name: np.zeros(length, layout.dtypes[name]) for name, length in layout.vectors.items()
    }
    for name, slot in layout.slots.items():
        values = state[name].numpy().reshape(-1)
        vectors[slot.vector][slot.offset : slot.offset + values.size] = values
    return vectors


def train_step_model(
    network: PortableNetwork,
    layout: PortableState,
    settings: EdgeOptimizer,
    *,
    num_classes: int,
    temperature: float,
    leakage_penalty: float = 0.0,
    low_memory: bool = False,
) -> onnx.ModelProto:
    """The whole training step, a few images at a time.

    Inputs are ``images [N, 3, S, S]`` in 0..1, ``labels [N] int64``, ``server_logits [N, C]``, the scalars
    ``alpha`` and ``learning_rate``, and every state vector under its name; outputs ``loss`` (scalar),
    ``logits [N, C]``, ``features [N, ...]`` (of the training forward pass), ``gradient [P]`` (of the loss
    and the L2 penalty, if the optimizer has one) and ``next_<name>`` of every state vector.
    """
    graph = Graph("train_step")
    size = network.image_size
    images = graph.input("images", ("N", 3, size, size))
    labels = graph.input("labels", ("N",), "int64")
    server_logits = graph.input("server_logits", ("N", num_classes))
    alpha = graph.input("alpha", ())
    learning_rate = graph.input("learning_rate", ())
    state = _inputs(graph, layout, layout.vectors)
    tape = Tape(graph)
    step = Step(graph, tape, *_cut(graph, layout, state), training=True)
    length = graph.op("Gather", graph.op("Shape", images), graph.constant(0, np.int64))
    step.batch_size = graph.op("Cast", length, to=TensorProto.FLOAT)
    features, logits = network.emit(step, images)
    loss, gradient = step_loss(graph, logits, labels, server_logits, alpha, step.batch_size, temperature)
    tape.give(logits, gradient)
    if leakage_penalty:
        pixels = Value(images, (3, size, size), needs_gradient=False)
        penalty, by_features = leakage_loss(graph, pixels, features, leakage_penalty)
        loss = graph.add(loss, penalty)
        tape.give(features, by_features)
    tape.backward()
    names = {vector: _names(layout, vector) for vector in (PARAMETERS, STATISTICS)}
    flat_gradient = graph.join([tape.parameter_gradients[name] for name in names[PARAMETERS]])
    flat_gradient = penalised(graph, settings, state[PARAMETERS], flat_gradient)
    parameters, new = update(graph, settings, state[PARAMETERS], flat_gradient, learning_rate, state)
    new[PARAMETERS] = parameters
    if names[STATISTICS]:
        new[STATISTICS] = graph.join([step.next_statistics[name] for name in names[STATISTICS]])
    graph.output(flat_gradient, "gradient", (layout.vectors[PARAMETERS],))
    graph.output(loss, "loss", ())
    graph.output(logits.name, "logits", ("N", num_classes))
    graph.output(features.name, "features", ("N", *features.shape))
    for name, num in layout.vectors.items():
        if num:
            graph.output(new[name], f"next_{name}", (num,), layout.dtypes[name])
    return in_chunks(graph.model(), low_memory=low_memory)


def predict_model(network: PortableNetwork, layout: PortableState, *, num_classes: int) -> onnx.ModelProto:
    """Features and logits in eval mode, from ``images`` and the vectors of weights and statistics."""
    graph = Graph("predict")
    size = network.image_size
    images = graph.input("images", ("N", 3, size, size))
    state = _inputs(graph, layout, (PARAMETERS, STATISTICS))
    step = Step(graph, Tape(graph), *_cut(graph, layout, state), training=False)
    features, logits = network.emit(step, images)
    graph.output(logits.name, "logits", ("N", num_classes))
    graph.output(features.name, "features", ("N", *features.shape))
    return graph.model()


def step_loss(
    graph: Graph, logits: Value, labels: str, teacher: str, alpha: str, batch_size: str, temperature: float
) -> tuple[str, str]:
    """Eq. 7 and its gradient: ``CE + alpha * T^2 * KL(teacher || logits)``, means over the batch.

    Returns:
        The loss, a scalar, and its gradient by the logits ``[N, C]``.
    """
    values = graph.constant([0.0, 1.0])
    depth = graph.constant([logits.shape[0]], np.int64)
    truth = graph.op("OneHot", labels, depth, values, axis=-1)
    log_hard = graph.op("LogSoftmax", logits.name, axis=1)
    cross = graph.op("Neg", graph.sum(graph.op("Mul", truth, log_hard), (0, 1)))
    soft = graph.constant(temperature)
    log_student = graph.op("LogSoftmax", graph.op("Div", logits.name, soft), axis=1)
    log_teacher = graph.op("LogSoftmax", graph.op("Div", teacher, soft), axis=1)
    teacher_probability = graph.op("Exp", log_teacher)
    apart = graph.op("Mul", teacher_probability, graph.op("Sub", log_teacher, log_student))
    distilled = graph.scale(graph.sum(apart, (0, 1)), temperature**2)
    loss = graph.op("Div", graph.add(cross, graph.op("Mul", alpha, distilled)), batch_size)
    hard = graph.op("Sub", graph.op("Exp", log_hard), truth)
    softened = graph.op("Sub", graph.op("Exp", log_student), teacher_probability)
    pull = graph.op("Mul", softened, graph.scale(alpha, temperature))
    return loss, graph.op("Div", graph.add(hard, pull), batch_size)


def _inputs(graph: Graph, layout: PortableState, names: Sequence[str] | dict[str, int]) -> dict[str, str]:
    return {
        name: graph.input(name, (layout.vectors[name],), layout.dtypes[name])
        for name in names
        if layout.vectors[name]
    }


def _names(layout: PortableState, vector: str) -> list[str]:
    return [name for name, slot in layout.slots.items() if slot.vector == vector]


def _cut(graph: Graph, layout: PortableState, state: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Graph names of all parameters, and of all running statistics."""
    cut = []
    for vector in (PARAMETERS, STATISTICS):
        names = _names(layout, vector)
        shapes = [layout.slots[name].shape for name in names]
        assert sum(math.prod(shape) for shape in shapes) == layout.vectors[vector]
        parts = graph.split(state[vector], shapes) if names else []
        cut.append(dict(zip(names, parts, strict=True)))
    return cut[0], cut[1]
