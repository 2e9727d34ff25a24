"""A PyTorch network, walked layer by layer into a graph that can also go backwards."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.fx.passes.shape_prop import ShapeProp

from edge_export.portable.convolution import conv_attributes, convolution
from edge_export.portable.layers import Step, add, batch_norm, linear, mean_pixels, relu
from edge_export.portable.mirrored import mirrored_conv, mirrored_halves, mirrored_predict
from edge_export.portable.pointwise import add_pointwise, folded_norm, pointwise_norm
from edge_export.portable.tape import Value
from gkt_core.errors import ConfigError
from gkt_core.nn import EdgeNetwork
from gkt_core.nn.building import example_images
from gkt_core.nn.resnet import MirroredConv, MirroredHalves

_RELUS: tuple[Any, ...] = (torch.relu, torch.relu_, torch.nn.functional.relu, "relu", "relu_")
_ADDS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_SUPPORTED = (
    "Conv2d, BatchNorm2d, ReLU, additions, Linear, and the mean over all pixels or AdaptiveAvgPool2d(1) "
    "with Flatten"
)


class PortableNetwork:
    """The layers of an edge network in order, checked to be ones that a portable step can have.

    Raises:
        ConfigError: A layer is another; names the network and the layer.
    """

    def __init__(self, network: EdgeNetwork, name: str, image_size: int) -> None:
        self._name = name
        self._network = network
        self.image_size = image_size
        body = _Body(network.extractor, network.head)
        try:
            traced = torch.fx.GraphModule(body, _Tracer().trace(body))
        except Exception as error:
            # A module of a user's own may fail in any way when it is traced.
            raise self._refused(f"its forward pass cannot be followed ({error})") from error
        was_training = network.training
        traced.eval()
        with torch.no_grad():
            ShapeProp(traced).propagate(example_images(2, image_size))  # type: ignore[no-untyped-call]
        network.train(was_training)
        self._nodes = list(traced.graph.nodes)
        self._modules = dict(body.named_modules())
        for node in self._nodes:
            self._check(node)

    def emit(self, step: Step, images: str) -> tuple[Value, Value]:
        """Add the network's nodes behind the input ``images [N, 3, S, S]`` in 0..1; features and logits."""
        graph = step.graph
        normalise = self._network.normalise
        centred = graph.op("Sub", images, graph.constant(normalise.mean.numpy()))
        scaled = graph.op("Div", centred, graph.constant(normalise.std.numpy()))
        values: dict[torch.fx.Node, Value] = {}
        outputs: tuple[torch.fx.Node, torch.fx.Node] | None = None
        folded: set[torch.fx.Node] = set()
        for node in self._nodes:
            if node.op == "placeholder":
                values[node] = Value(scaled, (3, self.image_size, self.image_size), needs_gradient=False)
            elif node.op == "output":
                outputs = node.args[0]
            elif self._folds(node, training=step.training):
                folded.add(node)
            elif node.args[0] in folded:
                values[node] = self._emit_folded(step, node, values)
            else:
                values[node] = self._emit(step, node, values)
        assert outputs is not None
        return values[outputs[0]], values[outputs[1]]

    def _folds(self, node: torch.fx.Node, *, training: bool) -> bool:
        """Whether this is a convolution that becomes one with the batch norm behind it."""
        module = self._module(node)
        users = list(node.users)
        if not (isinstance(module, nn.Conv2d) and module.bias is None and len(users) == 1):
            return False
        if not isinstance(self._module(users[0]), nn.BatchNorm2d):
            return False
        # A covariance of the input is worth its cost where the output is at least as wide.
        pointwise = module.kernel_size == (1, 1) and module.stride == (1, 1) and module.padding == (0, 0)
        return not training or (pointwise and module.out_channels >= module.in_channels)

    def _emit_folded(self, step: Step, node: torch.fx.Node, values: dict[torch.fx.Node, Value]) -> Value:
        source = node.args[0]
        assert isinstance(source, torch.fx.Node)
        conv, norm = self._module(source), self._module(node)
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        conv_name, norm_name = str(source.target), str(node.target)
        before = source.args[0]
        assert isinstance(before, torch.fx.Node)
        x = values[before]
        if step.training:
            return pointwise_norm(step, x, conv_name, norm_name, norm, conv.out_channels)
        kernel, shift = folded_norm(step, x, conv_name, norm_name, norm, tuple(conv.weight.shape))
        if isinstance(conv, MirroredConv):
            return mirrored_predict(step, x, kernel, shift, conv, _shape(node))
        return Value(step.graph.op("Conv", x.name, kernel, shift, **conv_attributes(conv)), _shape(node))

    def _emit(self, step: Step, node: torch.fx.Node, values: dict[torch.fx.Node, Value]) -> Value:
        x = values[node.args[0]]  # type: ignore[index]
        module, name = self._module(node), str(node.target)
        if isinstance(module, nn.Conv2d):
            users = list(node.users)
            is_normalised = len(users) == 1 and isinstance(self._module(users[0]), nn.BatchNorm2d)
            is_centred = is_normalised and step.training
            if isinstance(module, MirroredConv):
                return mirrored_conv(step, x, name, module, _shape(node), is_centred=is_centred)
            return convolution(step, x, name, module, _shape(node), is_centred=is_centred)
        if isinstance(module, nn.BatchNorm2d):
            return batch_norm(step, x, name, module)
        if isinstance(module, nn.Linear):
            return linear(step, x, name, module)
        if isinstance(module, MirroredHalves):
            return mirrored_halves(step, x, _shape(node))
        # Pooled values have no pixels any more: flattening them changes nothing.
        if isinstance(module, nn.Identity | nn.Flatten):
            return x
        if isinstance(module, nn.ReLU) or node.target in _RELUS:
            return relu(step, x)
        if node.target in _ADDS:
            y = values[node.args[1]]  # type: ignore[index]
            return add(step, x, y, add_pointwise(step, x, y))
        return mean_pixels(step, x)

    def _module(self, node: torch.fx.Node) -> nn.Module | None:
        return self._modules[str(node.target)] if node.op == "call_module" else None

    def _check(self, node: torch.fx.Node) -> None:
        module = self._module(node)
        if isinstance(module, nn.Conv2d):
            plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
            if not (plain and isinstance(module.padding, tuple)):
                raise self._refused(f"{node.target} has groups, dilation or another padding than zeros")
        elif isinstance(module, nn.BatchNorm2d):
            if not (module.affine and module.track_running_stats and module.momentum):
                raise self._refused(f"{node.target} has no weights, running statistics or fixed momentum")
        elif isinstance(module, nn.Linear):
            if module.bias is None or len(_shape(node)) != 1:
                raise self._refused(f"{node.target} has no bias, or more than one axis to work on")
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            flattened = all(isinstance(self._module(user), nn.Flatten) for user in node.users)
            if module.output_size not in (1, (1, 1)) or not flattened:
                raise self._refused(f"{node.target} pools to more than one pixel, or is not flattened")
        elif isinstance(module, nn.Flatten):
            source = node.args[0]
            pooled = isinstance(source, torch.fx.Node) and isinstance(
                self._module(source), nn.AdaptiveAvgPool2d
            )
            if not pooled or module.start_dim != 1:
                raise self._refused(f"{node.target} flattens what is not pooled to one pixel")
        elif not (
            isinstance(module, nn.ReLU | nn.Identity | MirroredHalves)
            or node.op in ("placeholder", "output")
            or (node.op in ("call_function", "call_method") and self._is_function(node))
        ):
            raise self._refused(f"it has {node.name} ({type(module).__name__ if module else node.target})")

    def _is_function(self, node: torch.fx.Node) -> bool:
        if node.target in _RELUS:
            return True
        if node.target in _ADDS:
            both = all(isinstance(argument, torch.fx.Node) for argument in node.args)
            shapes = {_shape(argument) for argument in node.args if isinstance(argument, torch.fx.Node)}
            return both and len(node.args) == 2 and len(shapes) == 1 and not node.kwargs
        if node.target not in ("mean", torch.mean):
            return False
        axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        return tuple(axes) in ((2, 3), (-2, -1)) and not node.kwargs.get("keepdim", False)  # type: ignore[arg-type]

    def _refused(self, reason: str) -> ConfigError:
        return ConfigError(
            f"network {self._name!r} cannot be a portable training step: {reason}; it may have {_SUPPORTED}. "
            "Export it with --engine ort-training"
        )


class _Tracer(torch.fx.Tracer):
    """Leaves those modules whole that have operators of their own here."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, MirroredConv | MirroredHalves)
        return own or super().is_leaf_module(m, module_qualified_name)


class _Body(nn.Module):
    """An edge network without its normalisation, which needs no way back."""

    def __init__(self, extractor: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        self.head = head

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.extractor(images)
        return features, self.head(features)


def _shape(node: torch.fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["tensor_meta"].shape[1:])
