"""What one sample costs in each network: parameters, multiply-accumulates (MACs) and FLOPs = 2 x MACs."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gkt_core.networks import EDGE_LAYOUTS, EDGE_NETWORKS, FULL_NETWORKS, NARROW_NETWORKS, TAP_CHANNELS
from gkt_core.nn import (
    CombinedNetwork,
    EdgeNetwork,
    build_edge_network,
    build_full_network,
    build_server_network,
)
from gkt_core.nn.building import example_images

EXTRACTOR = "extractor"
NETWORK_NAMES = (*EDGE_NETWORKS, *NARROW_NETWORKS, *FULL_NETWORKS, EXTRACTOR)


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """Counts of one network, for one sample; they follow from the layout alone, on any machine.

    Attributes:
        name: ``resnet8`` and so on, or ``extractor``: what split learning leaves on the device.
        num_parameters: Trainable parameters.
        forward_macs: MACs of convolutions and linear layers in a forward pass.
        fvcore_macs: What fvcore counts for a forward pass in training mode: the same MACs, and 5
            operations per element for each batch normalisation.
        train_flops: FLOPs (2 x MACs) of convolutions and linear layers in forward and backward pass.
            Below 3 x forward, because nobody needs the gradient of the images.
        fvcore_unsupported: Operators that fvcore has no count for and takes as 0, with how often they occur.
    """

    name: str
    num_parameters: int
    forward_macs: int
    fvcore_macs: int
    train_flops: int
    fvcore_unsupported: dict[str, int] = field(default_factory=dict)


def build_trainable(name: str, num_classes: int) -> EdgeNetwork | CombinedNetwork:
    """Build an edge network or a full network with fresh weights.

    Raises:
        ConfigError: The name is unknown or the class count is not at least 2.
    """
    if name in EDGE_LAYOUTS:
        return build_edge_network(name, num_classes)
    return build_full_network(name, num_classes)


def count_network(name: str, *, num_classes: int = 10, image_size: int = 32) -> NetworkCost:
    """Count what one sample of ``[3, image_size, image_size]`` costs.

    Raises:
        ConfigError: Name, class count or image size is not one that the networks take.
    """
    images = example_images(1, image_size)
    network: nn.Module = (
        build_edge_network("resnet8", num_classes).extractor
        if name == EXTRACTOR
        else build_trainable(name, num_classes)
    )
    fvcore_macs, unsupported = count_with_fvcore(network, images)
    return NetworkCost(
        name=name,
        num_parameters=count_parameters(network),
        forward_macs=count_forward_macs(network, images),
        fvcore_macs=fvcore_macs,
        train_flops=count_train_flops(network, images),
        fvcore_unsupported=unsupported,
    )


@functools.lru_cache(maxsize=32)
def count_server_flops(name: str, *, num_classes: int, image_size: int, sends_gradient: bool) -> int:
    """FLOPs of training a server network on one sample's features, forward and backward.

    Args:
        name: ``resnet55`` or ``resnet109``.
        num_classes: Width of the logits.
        image_size: Pixels of the image, and of its features.
        sends_gradient: Whether the gradient of the features is wanted too, as split learning does.
    """
    features = torch.zeros(1, TAP_CHANNELS, image_size, image_size, requires_grad=sends_gradient)
    return count_train_flops(build_server_network(name, num_classes), features)


def count_parameters(network: nn.Module) -> int:
    """Count trainable parameters; running statistics are none."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def count_forward_macs(network: nn.Module, inputs: Tensor) -> int:
    """Count MACs of convolutions and linear layers in one forward pass over ``inputs``."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(inputs)
    # The counter counts a multiply-accumulate as two floating-point operations.
    return int(counter.get_total_flops()) // 2


def count_train_flops(network: nn.Module, inputs: Tensor) -> int:
    """Count FLOPs (2 x MACs) of convolutions and linear layers in one forward and backward pass.

    The loss is a sum: neither cross entropy nor distillation has a convolution or matrix product.
    """
    with FlopCounterMode(display=False) as counter:
        outputs = network.train()(inputs)
        # An edge network returns features and logits; its loss hangs on the logits.
        last = outputs[-1] if isinstance(outputs, tuple) else outputs
        last.sum().backward()
    network.zero_grad()
    return int(counter.get_total_flops())


def count_with_fvcore(network: nn.Module, inputs: Tensor) -> tuple[int, dict[str, int]]:
    """Ask fvcore for its count of one forward pass in training mode; fvcore calls MACs flops.

    Training mode is what a device runs; fvcore counts 5 operations per element for batch normalisation
    there, and 2 in evaluation mode.

    Returns:
        The count, and the operators that it leaves out: additions, means, the normalisation of pixels.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis  # noqa: PLC0415 - decorates with torch.jit.script on import

        analysis = FlopCountAnalysis(network.train(), inputs)
        # What is not counted is returned; identity shortcuts are modules that no call reaches, which is
        # known. Both would fill the screen.
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return int(analysis.total()), dict(sorted(analysis.unsupported_ops().items()))
