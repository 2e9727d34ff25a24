"""Model templates: ONNX files whose weights are filled in as bytes, without onnx.

``gkt export`` writes the combined network (extractor + server network) once, with every weight stored
uncompressed at a known offset. The server fills in its half after training and publishes the file; each
device fills in its own extractor. So neither needs onnx, and an extractor leaves its device only in a run
that averages extractors (:mod:`gkt_core.rounds.shared_extractor`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gkt_core.bundle.manifest import TensorSlot
from gkt_core.errors import TemplateError

EXTRACTOR_PREFIX = "extractor."
SERVER_PREFIX = "server."


def fill_template(
    template: bytes,
    slots: Mapping[str, TensorSlot],
    tensors: Mapping[str, NDArray[np.float32]],
    prefix: str,
) -> bytes:
    """Put weights into their places in an ONNX file; the filled file, of the same length.

    All slots whose names begin with ``prefix`` must be given; other tensors are ignored.

    Raises:
        TemplateError: A tensor is missing, has another shape, or lies outside the file.
    """
    filled = bytearray(template)
    wanted = {name: slot for name, slot in slots.items() if name.startswith(prefix)}
    given = {name for name in tensors if name.startswith(prefix)}
    if not wanted or given != set(wanted):
        missing, unknown = sorted(set(wanted) - given), sorted(given - set(wanted))
        raise TemplateError(f"weights do not fit the template: missing {missing[:3]}, unknown {unknown[:3]}")
    for name, slot in wanted.items():
        values = np.asarray(tensors[name], dtype="<f4")
        if list(values.shape) != slot.shape:
            raise TemplateError(f"{name} is {list(values.shape)}, the template expects {slot.shape}")
        end = slot.offset + values.nbytes
        if slot.offset < 0 or end > len(filled):
            raise TemplateError(f"{name} lies outside the template: it is not the bundle's")
        filled[slot.offset : end] = values.tobytes()
    return bytes(filled)
