"""``.ort`` files: what reduced builds of ONNX Runtime, as on phones, load in place of ``.onnx``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gkt_core.bundle.manifest import COMBINED_TEMPLATE
from gkt_core.bundle.onnx_runtime import cpu_session, optimising_options


def write_ort_format(folder: Path, names: Iterable[str]) -> list[str]:
    """Write ``NAME.ort`` beside each ``NAME.onnx``, its graph optimised as far as any machine can run it.

    The template of the combined model is left out: its weights have places only in the ``.onnx`` file.

    Returns:
        Names of the new files.
    """
    written = []
    for name in names:
        if not name.endswith(".onnx") or name == COMBINED_TEMPLATE:
            continue
        target = name.removesuffix(".onnx") + ".ort"
        options = optimising_options(folder / target)
        options.add_session_config_entry("session.save_model_format", "ORT")
        cpu_session(folder / name, options)
        written.append(target)
    return written
