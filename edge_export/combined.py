"""The combined model between PyTorch and ONNX: a module out of a device's file, a file out of a module."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from edge_export.combined_template import combined_template
from gkt_core.bundle.manifest import load_bundle
from gkt_core.bundle.model_identity import ModelIdentity
from gkt_core.bundle.template import fill_template
from gkt_core.errors import ArtifactError
from gkt_core.files import write_atomically
from gkt_core.nn import CombinedNetwork, build_combined_network
from gkt_core.onnx_files.metadata import with_metadata


def load_combined(model: Path | str, artifacts: Path | str) -> CombinedNetwork:
    """Make a PyTorch module of a device's ``model.onnx``: to train on, or to look into.

    Args:
        model: What ``gkt edge run`` left in its state folder.
        artifacts: The run's bundle: which networks they are, and how pixels are normalised. A device's own is
            ``bundle`` in its state folder.

    Raises:
        ArtifactError: The file is no combined model of these networks.
        ConfigError: The networks are not known here: load the module that registers them.
    """
    # A device has the files that it trains with, and no others.
    manifest = load_bundle(Path(artifacts), names=()).manifest
    pixels = {"pixel_mean": tuple(manifest.pixel_mean), "pixel_std": tuple(manifest.pixel_std)}
    network = build_combined_network(
        manifest.edge_network,
        manifest.server_network,
        manifest.num_classes,
        **pixels,  # type: ignore[arg-type]
    )
    try:
        loaded = onnx.load(model)
        arrays = {each.name: numpy_helper.to_array(each) for each in loaded.graph.initializer}
        state = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
        wanted = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
        network.load_state_dict({name: state[name] for name in wanted}, strict=False)
    # onnx and protobuf raise whatever they like for bytes that are no model.
    except Exception as error:
        raise ArtifactError(
            f"{model} is no combined model of {manifest.edge_network} and {manifest.server_network}: "
            f"{type(error).__name__}: {str(error)[:300]}: give model.onnx of gkt edge run "
            "and its run's bundle"
        ) from error
    return network.eval()


def save_combined(
    network: CombinedNetwork,
    path: Path | str,
    *,
    image_size: int,
    class_names: Sequence[str] = (),
    identity: ModelIdentity | None = None,
) -> None:
    """Write a combined network, as a simulation ends with, as the ONNX file that a device would have.

    Input is ``images [N, 3, image_size, image_size] float32`` in 0..1, output ``logits [N, C]``.

    Args:
        network: What is written; it is left as it was.
        path: The file.
        image_size: In pixels.
        class_names: In the order of the logits; none where they have no names.
        identity: What the file says of itself; nothing by default.

    Raises:
        TemplateError: The network cannot be written with each weight in a place of its own.
    """
    own: Any = copy.deepcopy(network).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    template, slots = combined_template(own, image_size=image_size, class_names=class_names)
    tensors = {name: value.numpy() for name, value in own.state_dict().items() if name in slots}
    model = fill_template(template, slots, tensors, "")
    write_atomically(Path(path), model if identity is None else with_metadata(model, identity.metadata()))
