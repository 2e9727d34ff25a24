"""``.ort`` files: what reduced builds of ONNX Runtime, as on phones, load in place of ``.onnx``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gkt_core.bundle.manifest import COMBINED_TEMPLATE
from gkt_core.bundle.onnx_runtime import onnxruntime_module


def write_ort_format(folder: Path, names: Iterable[str]) -> list[str]:
    """Write ``NAME.ort`` beside each ``NAME.onnx``, its graph optimised as far as any machine can run it.

    The template of the combined model is left out: its weights have places only in the ``.onnx`` file.

    Returns:
        Names of the new files.
    """
    onnxruntime = onnxruntime_module()
    written = []
    for name in names:
        if not name.endswith(".onnx") or name == COMBINED_TEMPLATE:
            continue
        target = name.removesuffix(".onnx") + ".ort"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folder / target)
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        written.append(target)
    return written
