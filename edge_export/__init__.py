"""Torch and onnx in, files out that a device trains with. Never installed on a device.

The names are imported when they are used: ``gkt --help`` loads this package and must not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gkt_core.lazy_names import lazy_names as _lazy_names

if TYPE_CHECKING:
    from edge_export.bundle import export_bundle
    from edge_export.combined import load_combined, save_combined
    from edge_export.options import ExportOptions
    from edge_export.reopening import verify

__all__ = ["ExportOptions", "export_bundle", "load_combined", "save_combined", "verify"]

_WHERE = {
    "ExportOptions": "edge_export.options",
    "export_bundle": "edge_export.bundle",
    "load_combined": "edge_export.combined",
    "save_combined": "edge_export.combined",
    "verify": "edge_export.reopening",
}

__getattr__ = _lazy_names(__name__, _WHERE)
