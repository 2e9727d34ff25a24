"""The PyTorch network that a bundle was made from, out of the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

from edge_export.engines import engine_opener
from edge_export.initial_network import initial_network
from edge_export.options import ExportOptions
from edge_export.verification import verify_bundle
from gkt_core.bundle.manifest import INITIAL_STATE, ORT_TRAINING, PORTABLE, Bundle, load_bundle
from gkt_core.nn import EdgeNetwork


def network_of(bundle: Bundle) -> EdgeNetwork:
    """Build the network with the bundle's initial weights, wherever they came from.

    Raises:
        ConfigError: The network is not known here: give the module that registers it.
        ArtifactError: ONNX Runtime's checkpoint, the only place of the weights, does not load.
        MissingExtraError: It is, and the installed ONNX Runtime cannot read it.
    """
    manifest = bundle.manifest
    options = ExportOptions(
        edge_network=manifest.edge_network,
        server_network=manifest.server_network,
        num_classes=manifest.num_classes,
        image_size=manifest.image_size,
        pixel_mean=tuple(manifest.pixel_mean),
        pixel_std=tuple(manifest.pixel_std),
        seed=manifest.seed,
    )
    network = initial_network(options)
    tensors = _initial_tensors(bundle)
    network.load_state_dict({n: torch.from_numpy(v) for n, v in tensors.items()}, strict=False)
    return network


def verify(artifacts: Path | str) -> dict[str, Any]:
    """Check a bundle as ``gkt verify`` does: its files by hash, then each engine's steps against PyTorch.

    Returns:
        What :func:`edge_export.verification.verify_bundle` measured, by engine.

    Raises:
        ArtifactError: A file is missing or changed.
        VerificationError: An engine is further from float64 than it may be.
    """
    bundle = load_bundle(Path(artifacts))
    return verify_bundle(bundle, network_of(bundle))


def _initial_tensors(bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    manifest = bundle.manifest
    if PORTABLE in manifest.engines:
        vectors = safetensors.numpy.load(bundle.file(INITIAL_STATE).read_bytes())
        return manifest.portable_layout().tensors(vectors)
    # ONNX Runtime's own format, which only its training build reads.
    engine = engine_opener()(bundle, checkpoint=None, num_threads=1, learning_rate=0.0, engine=ORT_TRAINING)
    return engine.parameters()
