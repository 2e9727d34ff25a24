"""Compute in numpy what a built-in network makes of images, to compare it with what a graph says.

Of the extractor normalisation, the stem (convolution without bias, batch norm, ReLU) and, of a narrow tap,
its blocks and the 1x1 convolution behind them; of the local head its blocks, average and linear layer: all
in eval mode, from the weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gkt_core.bundle.manifest import Manifest
from gkt_core.errors import UnsafeModelError
from gkt_core.networks import (
    EDGE_LAYOUTS,
    EXPANSION,
    STEM_KERNELS,
    TAP_CHANNELS,
    EdgeLayout,
    layout_of,
)

Arrays = Mapping[str, NDArray[np.float32]]
Images = NDArray[np.float32]
_EPSILON = 1e-5


def known_features(images: Images, parameters: Arrays, manifest: Manifest) -> NDArray[np.float32]:
    """Compute the features of a built-in network.

    Args:
        images: ``[n, 3, S, S] float32`` in 0..1.
        parameters: Of the network, by PyTorch's names.
        manifest: Says how images are normalised, and which network it is: one of
            :func:`gkt_core.networks.layout_of`.

    Returns:
        ``[n, C, H, W] float32``; not finite where the weights are not.

    Raises:
        UnsafeModelError: The network has other weights than a built-in one.
    """
    layout = layout_of(manifest.edge_network)
    assert layout is not None
    mean, std = (
        np.asarray(each, np.float32).reshape(1, 3, 1, 1) for each in (manifest.pixel_mean, manifest.pixel_std)
    )
    try:
        # Whatever comes of a server's weights is compared: it need not be a number.
        with np.errstate(all="ignore"):
            return _Layers(parameters, layout).features((images - mean) / std)
    except (KeyError, ValueError) as error:
        raise UnsafeModelError(
            f"the bundle calls its network {manifest.edge_network} and has other first layers than that one: "
            "whoever runs the server must export again"
        ) from error


def known_logits(
    features: NDArray[np.float32], parameters: Arrays, manifest: Manifest
) -> NDArray[np.float32]:
    """Compute the logits of a built-in network's local head.

    Args:
        features: ``[n, C, H, W] float32`` at its tap.
        parameters: Of the network, by PyTorch's names.
        manifest: Says which network it is: one of :data:`gkt_core.networks.EDGE_LAYOUTS`.

    Returns:
        ``[n, classes] float32``; not finite where the weights are not.

    Raises:
        UnsafeModelError: The network has other weights than a built-in one.
    """
    layout = EDGE_LAYOUTS[manifest.edge_network]
    try:
        with np.errstate(all="ignore"):
            return _Layers(parameters, layout).logits(features, manifest.num_classes)
    except (KeyError, ValueError) as error:
        raise UnsafeModelError(
            f"the bundle calls its network {manifest.edge_network} and has another local head than that one: "
            "whoever runs the server must export again"
        ) from error


class _Layers:
    """The layers of a network; raises KeyError or ValueError where weights are missing or others."""

    def __init__(self, parameters: Arrays, layout: EdgeLayout) -> None:
        self._parameters, self._layout = parameters, layout

    def features(self, x: Images) -> NDArray[np.float32]:
        """Map normalised images to the tap."""
        layout, width = self._layout, TAP_CHANNELS * EXPANSION
        narrow = layout.tap_blocks > 0
        x = self._stem(x, "extractor.stem" if narrow else "extractor")
        for index in range(layout.tap_blocks):
            x = self._bottleneck(x, f"extractor.blocks.{index}", width if index else TAP_CHANNELS, 2)
        if narrow:
            x = _relu(self._layer(x, "extractor.conv", "extractor.bn", (layout.channels, width, 1, 1)))
        return x

    def logits(self, x: NDArray[np.float32], num_classes: int) -> NDArray[np.float32]:
        """Map the tap to logits."""
        layout = self._layout
        width = TAP_CHANNELS * (EXPANSION if layout.bottleneck else 1)
        for index in range(layout.head_blocks):
            block = self._bottleneck if layout.bottleneck else self._basic
            x = block(x, f"head.blocks.{index}", width if index else layout.channels)
        weight, bias = (
            np.asarray(self._parameters[f"head.fc.{name}"], np.float32) for name in ("weight", "bias")
        )
        if weight.shape != (num_classes, width) or bias.shape != (num_classes,):
            raise ValueError("shapes")
        result: NDArray[np.float32] = x.mean(axis=(2, 3)) @ weight.T + bias
        return result

    def _stem(self, x: Images, name: str) -> NDArray[np.float32]:
        layout = self._layout
        filters = TAP_CHANNELS // 2 if layout.is_tied else TAP_CHANNELS
        side = STEM_KERNELS[layout.stem_stride]
        kernel, offset = self._folded(f"{name}.conv", f"{name}.bn", (filters, 3, side, side))
        if layout.is_tied:
            kernel = np.concatenate([kernel, kernel[..., ::-1]])
            offset = np.tile(offset, 2)
        return _relu(convolved(x, kernel, offset, layout.stem_stride))

    def _bottleneck(
        self, x: NDArray[np.float32], name: str, channels: int, stride: int = 1
    ) -> NDArray[np.float32]:
        """1x1, 3x3 with a stride and 1x1 around a shortcut."""
        planes, width = TAP_CHANNELS, TAP_CHANNELS * EXPANSION
        y = _relu(self._layer(x, f"{name}.conv1", f"{name}.bn1", (planes, channels, 1, 1)))
        y = _relu(self._layer(y, f"{name}.conv2", f"{name}.bn2", (planes, planes, 3, 3), stride))
        y = self._layer(y, f"{name}.conv3", f"{name}.bn3", (width, planes, 1, 1))
        y += self._shortcut(x, name, width, stride)
        return _relu(y)

    def _basic(self, x: NDArray[np.float32], name: str, channels: int) -> NDArray[np.float32]:
        """Two 3x3 around a shortcut."""
        planes = TAP_CHANNELS
        y = _relu(self._layer(x, f"{name}.conv1", f"{name}.bn1", (planes, channels, 3, 3)))
        y = self._layer(y, f"{name}.conv2", f"{name}.bn2", (planes, planes, 3, 3))
        y += self._shortcut(x, name, planes, 1)
        return _relu(y)

    def _shortcut(
        self, x: NDArray[np.float32], name: str, out_channels: int, stride: int
    ) -> NDArray[np.float32]:
        """Nothing, or a 1x1 where the shape changes."""
        channels, name = x.shape[1], f"{name}.shortcut"
        if stride == 1 and channels == out_channels:
            return x
        return self._layer(x, f"{name}.conv", f"{name}.bn", (out_channels, channels, 1, 1), stride)

    def _layer(
        self, x: NDArray[np.float32], conv: str, norm: str, shape: tuple[int, ...], stride: int = 1
    ) -> NDArray[np.float32]:
        return convolved(x, *self._folded(conv, norm, shape), stride)

    def _folded(
        self, conv: str, norm: str, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Kernel and offset of a convolution with the batch norm behind it."""
        kernel = np.asarray(self._parameters[f"{conv}.weight"], np.float32)
        scale, shift, mean, variance = (
            np.asarray(self._parameters[f"{norm}.{name}"], np.float32)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        if kernel.shape != shape or {each.shape for each in (scale, shift, mean, variance)} != {shape[:1]}:
            raise ValueError("shapes")
        factor = scale / np.sqrt(variance + np.float32(_EPSILON))
        return kernel * factor[:, None, None, None], shift - mean * factor


def convolved(
    x: NDArray[np.float32], kernel: NDArray[np.float32], offset: NDArray[np.float32], stride: int
) -> NDArray[np.float32]:
    """Convolve ``[n, C, S, S]`` with ``[D, C, k, k]`` and zeros around it, and add ``[D]``."""
    num, channels, size, _ = x.shape
    side, out = kernel.shape[2], -(-size // stride)
    flat = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), side * side * channels)
    around = side // 2
    padded = np.pad(x, ((0, 0), (0, 0), (around, around), (around, around))) if around else x
    columns = np.empty((num, side * side, channels, out, out), np.float32)
    for place in range(side * side):
        row, column = divmod(place, side)
        columns[:, place] = padded[:, :, row : row + size : stride, column : column + size : stride]
    result: NDArray[np.float32] = np.matmul(flat, columns.reshape(num, len(flat[0]), out * out))
    result += offset[:, None]
    return result.reshape(num, len(kernel), out, out)


def _relu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    np.maximum(x, 0, out=x)
    return x
