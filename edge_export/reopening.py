"""The PyTorch network that a bundle was made from, out of the bundle."""

from __future__ import annotations

import safetensors.numpy
import torch

from edge_export.options import ExportOptions
from gkt_core.manifest import INITIAL_STATE, PORTABLE, Bundle
from gkt_core.nn import EdgeNetwork


def network_of(bundle: Bundle) -> EdgeNetwork:
    """Build the network with the bundle's initial weights.

    A bundle without the portable engine keeps its weights in ONNX Runtime's own format; then they are
    those of its seed, and one that was exported with ``--init`` cannot be rebuilt.

    Raises:
        ConfigError: The network is not known here: give the module that registers it.
    """
    manifest = bundle.manifest
    network = ExportOptions(
        edge_network=manifest.edge_network,
        server_network=manifest.server_network,
        num_classes=manifest.num_classes,
        image_size=manifest.image_size,
        pixel_mean=(manifest.pixel_mean[0], manifest.pixel_mean[1], manifest.pixel_mean[2]),
        pixel_std=(manifest.pixel_std[0], manifest.pixel_std[1], manifest.pixel_std[2]),
        seed=manifest.seed,
    ).build()
    if PORTABLE in manifest.engines:
        vectors = safetensors.numpy.load(bundle.file(INITIAL_STATE).read_bytes())
        tensors = manifest.portable_layout().tensors(vectors)
        network.load_state_dict({n: torch.from_numpy(v) for n, v in tensors.items()}, strict=False)
    return network
