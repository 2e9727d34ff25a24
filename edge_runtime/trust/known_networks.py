"""Compute in numpy what the extractor of a built-in network makes of images, to compare it with a graph's.

Normalisation, the stem (convolution without bias, batch norm, ReLU) and, of a narrow tap, its blocks and the
1x1 convolution behind them: all in eval mode, from the weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gkt_core.bundle.manifest import Manifest
from gkt_core.errors import UnsafeModelError
from gkt_core.networks import EXPANSION, STEM_KERNELS, TAP_CHANNELS, EdgeLayout, layout_of

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
            return _Extractor(parameters, layout).features((images - mean) / std)
    except (KeyError, ValueError) as error:
        raise UnsafeModelError(
            f"the bundle calls its network {manifest.edge_network} and has other first layers than that one: "
            "whoever runs the server must export again"
        ) from error


class _Extractor:
    """The layers of an extractor; raises KeyError or ValueError where weights are missing or others."""

    def __init__(self, parameters: Arrays, layout: EdgeLayout) -> None:
        self._parameters, self._layout = parameters, layout

    def features(self, x: Images) -> NDArray[np.float32]:
        """Map normalised images to the tap."""
        layout, width = self._layout, TAP_CHANNELS * EXPANSION
        narrow = layout.tap_blocks > 0
        x = self._stem(x, "extractor.stem" if narrow else "extractor")
        for index in range(layout.tap_blocks):
            x = self._bottleneck(x, f"extractor.blocks.{index}", width if index else TAP_CHANNELS)
        if narrow:
            x = _relu(self._layer(x, "extractor.conv", "extractor.bn", (layout.channels, width, 1, 1)))
        return x

    def _stem(self, x: Images, name: str) -> NDArray[np.float32]:
        layout = self._layout
        filters = TAP_CHANNELS // 2 if layout.is_tied else TAP_CHANNELS
        side = STEM_KERNELS[layout.stem_stride]
        kernel, offset = self._folded(f"{name}.conv", f"{name}.bn", (filters, 3, side, side))
        if layout.is_tied:
            kernel = np.concatenate([kernel, kernel[..., ::-1]])
            offset = np.tile(offset, 2)
        return _relu(convolved(x, kernel, offset, layout.stem_stride))

    def _bottleneck(self, x: NDArray[np.float32], name: str, channels: int) -> NDArray[np.float32]:
        """1x1, 3x3 with stride 2 and 1x1 around a shortcut that projects."""
        planes, width = TAP_CHANNELS, TAP_CHANNELS * EXPANSION
        shortcut = f"{name}.shortcut"
        y = _relu(self._layer(x, f"{name}.conv1", f"{name}.bn1", (planes, channels, 1, 1)))
        y = _relu(self._layer(y, f"{name}.conv2", f"{name}.bn2", (planes, planes, 3, 3), 2))
        y = self._layer(y, f"{name}.conv3", f"{name}.bn3", (width, planes, 1, 1))
        y += self._layer(x, f"{shortcut}.conv", f"{shortcut}.bn", (width, channels, 1, 1), 2)
        return _relu(y)

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
