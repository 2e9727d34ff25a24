"""The files of the portable engine: training step, prediction, initial state."""

from __future__ import annotations

from pathlib import Path

import safetensors.numpy

from edge_export.onnx_files import save_model
from edge_export.portable.network import PortableNetwork
from edge_export.portable.step import initial_vectors, predict_model, state_layout, train_step_model
from gkt_core.bundle.manifest import INITIAL_STATE, PREDICT, TRAIN_STEP
from gkt_core.bundle.portable_state import PortableState
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.nn import EdgeNetwork


def write_portable_artifacts(
    network: EdgeNetwork,
    settings: EdgeOptimizer,
    out: Path,
    *,
    name: str,
    num_classes: int,
    image_size: int,
    temperature: float,
    leakage_penalty: float = 0.0,
    low_memory: bool = False,
) -> PortableState:
    """Write ``train_step.onnx``, ``predict.onnx`` and ``initial_state.safetensors``.

    With ``low_memory`` the step makes wide values again rather than to keep them. The network is left as it
    was; errors call it by ``name``.

    Returns:
        The layout of the state vectors, for the manifest.

    Raises:
        ConfigError: The network has a layer that a portable step cannot have.
    """
    state = {
        name: value.detach()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    walked = PortableNetwork(network, name, image_size)
    layout = state_layout(state, settings)
    step = train_step_model(
        walked,
        layout,
        settings,
        num_classes=num_classes,
        temperature=temperature,
        leakage_penalty=leakage_penalty,
        low_memory=low_memory,
    )
    save_model(step, out / TRAIN_STEP)
    save_model(predict_model(walked, layout, num_classes=num_classes), out / PREDICT)
    (out / INITIAL_STATE).write_bytes(safetensors.numpy.save(initial_vectors(state, layout)))
    return layout
