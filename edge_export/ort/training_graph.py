"""The device's training step as one ONNX graph: forward, local head and the loss of Eq. 7."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from gkt_core.nn import EdgeNetwork, edge_loss
from gkt_core.nn.building import example_images
from gkt_core.nn.losses import distance_correlation

OPSET = 15
INPUT_NAMES = ("images", "labels", "server_logits", "alpha")
OUTPUT_NAMES = ("loss", "logits", "features")


class EdgeTrainingStep(nn.Module):
    """What is traced: parameters keep the names that they have in :class:`EdgeNetwork`."""

    def __init__(
        self,
        network: EdgeNetwork,
        temperature: float,
        weight_decay: float = 0.0,
        leakage_penalty: float = 0.0,
    ) -> None:
        super().__init__()
        self.normalise = network.normalise
        self.extractor = network.extractor
        self.head = network.head
        self.temperature = temperature
        self.weight_decay = weight_decay
        self.leakage_penalty = leakage_penalty

    def forward(
        self, images: Tensor, labels: Tensor, server_logits: Tensor, alpha: Tensor
    ) -> tuple[Tensor, ...]:
        """Eq. 7 on one batch.

        Args:
            images: ``[N, 3, S, S] float32`` in 0..1.
            labels: ``[N] int64``.
            server_logits: ``[N, C] float32``, raw.
            alpha: Scalar; 0 in the first round.

        Returns:
            ``loss`` (scalar), ``logits [N, C]``, ``features [N, 16, S, S]``; with weight decay
            ``objective``, the loss with an L2 penalty, before them.
        """
        features = self.extractor(self.normalise(images))
        logits = self.head(features)
        loss = edge_loss(logits, labels, server_logits, alpha, self.temperature)
        if self.leakage_penalty:
            loss = loss + self.leakage_penalty * distance_correlation(images, features)
        if not self.weight_decay:
            return loss, logits, features
        # Its gradient is weight_decay * parameter, what PyTorch's optimizers add to the gradient.
        squares = torch.stack([(parameter * parameter).sum() for parameter in self.parameters()])
        return loss + 0.5 * self.weight_decay * squares.sum(), loss, logits, features


@contextlib.contextmanager
def untouched(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Undo what tracing does to a network: it runs a forward pass, which moves the running statistics.

    Yields:
        The state before, by name, without the batch counters that no ONNX graph has.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    counters = [norm.num_batches_tracked for norm in norms]
    training = network.training
    for norm in norms:
        norm.num_batches_tracked = None
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    try:
        yield state
    finally:
        with torch.no_grad():
            for name, value in network.state_dict().items():
                value.copy_(state[name])
        network.train(training)
        for norm, counter in zip(norms, counters, strict=True):
            norm.num_batches_tracked = counter


def trace_to_onnx(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    input_names: tuple[str, ...],
    output_names: tuple[str, ...],
    scalars: tuple[str, ...],
    state: dict[str, Tensor],
) -> onnx.ModelProto:
    """Trace a module in training mode, with a dynamic batch size and initialisers equal to ``state``.

    The TorchScript exporter is used on purpose: the newer one folds batch normalisation away even in
    training mode. ``scalars`` are those inputs and outputs that have no batch dimension.
    """
    dynamic = {name: {0: "N"} for name in (*input_names, *output_names) if name not in scalars}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example_inputs,
            buffer,
            dynamo=False,
            training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
            opset_version=OPSET,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_axes=dynamic,
        )
    model = onnx.load_from_string(buffer.getvalue())
    for initializer in model.graph.initializer:
        values = state[initializer.name].numpy()
        initializer.CopyFrom(onnx.numpy_helper.from_array(values, initializer.name))
    return model


def use_running_statistics(model: onnx.ModelProto) -> None:
    """Turn a graph traced in training mode into one for inference, in place.

    Each BatchNormalization keeps its first output only: with the others ONNX Runtime refuses to load it.
    """
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            del node.output[1:]
            for attribute in node.attribute:
                if attribute.name == "training_mode":
                    attribute.i = 0


def training_graph(
    network: EdgeNetwork,
    *,
    num_classes: int,
    image_size: int,
    temperature: float,
    weight_decay: float = 0.0,
    leakage_penalty: float = 0.0,
) -> onnx.ModelProto:
    """Trace the training step of an edge network; the network is left as it was.

    With ``weight_decay`` the first output is ``objective``, the loss with an L2 penalty on all parameters.
    """
    step = EdgeTrainingStep(network, temperature, weight_decay, leakage_penalty)
    outputs = (("objective",) if weight_decay else ()) + OUTPUT_NAMES
    labels, logits = torch.arange(4) % num_classes, torch.zeros(4, num_classes)
    with untouched(network) as state:
        network.train()
        return trace_to_onnx(
            step,
            (example_images(4, image_size), labels, logits, torch.tensor(1.0)),
            input_names=INPUT_NAMES,
            output_names=outputs,
            scalars=("alpha", "loss", "objective"),
            state=state,
        )
