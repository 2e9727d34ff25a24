"""The combined network as an ONNX file whose weights can be overwritten in place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx
import torch
from onnx import numpy_helper

from edge_export.ort.training_graph import trace_to_onnx, untouched, use_running_statistics
from gkt_core.bundle.manifest import TensorSlot
from gkt_core.bundle.model_metadata import metadata_of
from gkt_core.errors import TemplateError
from gkt_core.nn import CombinedNetwork
from gkt_core.nn.building import example_images


def combined_template(
    network: CombinedNetwork, *, image_size: int, class_names: Sequence[str] = ()
) -> tuple[bytes, dict[str, TensorSlot]]:
    """Serialise a combined network for inference and find where each weight lies.

    Batch normalisation is kept as nodes (ONNX Runtime folds it when it loads the file), so that every
    tensor of the PyTorch module has exactly one place. The weights in the file are NaN: a template that
    somebody forgot to fill cannot pass for a model. The names of the classes travel in its metadata.

    Input is ``images [N, 3, image_size, image_size] float32`` in 0..1. The network is left as it was.

    Returns:
        The file, and the slot of each tensor by name.

    Raises:
        TemplateError: A tensor is not found exactly once.
    """
    with untouched(network) as state:
        model = trace_to_onnx(
            network,
            (example_images(2, image_size),),
            input_names=("images",),
            output_names=("logits",),
            scalars=(),
            state=state,
        )
    use_running_statistics(model)
    names = {initializer.name for initializer in model.graph.initializer}
    if names != set(state):
        raise TemplateError(f"the exporter changed tensors: {sorted(names ^ set(state))[:5]}")
    slots: dict[str, TensorSlot] = {}
    generator = torch.Generator().manual_seed(0)
    markers: dict[str, bytes] = {}
    for initializer in model.graph.initializer:
        num_bytes = 4 * max(1, math.prod(initializer.dims))
        marker = torch.randint(0, 256, (num_bytes,), generator=generator, dtype=torch.uint8)
        markers[initializer.name] = marker.numpy().tobytes()
        array = numpy_helper.from_array(state[initializer.name].numpy(), initializer.name)
        array.raw_data = markers[initializer.name]
        initializer.CopyFrom(array)
    _strip(model)
    onnx.helper.set_model_props(model, metadata_of(class_names))
    data = bytearray(model.SerializeToString())
    for initializer in model.graph.initializer:
        marker_bytes = markers[initializer.name]
        offset = data.find(marker_bytes)
        if offset < 0 or data.find(marker_bytes, offset + 1) >= 0:
            raise TemplateError(f"{initializer.name} is not in the template exactly once")
        slots[initializer.name] = TensorSlot(offset, list(initializer.dims))
    for slot in slots.values():
        num_bytes = 4 * math.prod(slot.shape)
        data[slot.offset : slot.offset + num_bytes] = b"\x00\x00\xc0\x7f" * (num_bytes // 4)
    return bytes(data), slots


def _strip(model: onnx.ModelProto) -> None:
    """Drop what names the machine or the source file that made the model."""
    for node in model.graph.node:
        node.doc_string = ""
    model.graph.name = "gkt_combined"
