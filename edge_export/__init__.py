"""Torch and onnx in, files out that a device trains with. Never installed on a device.

The names are imported when they are used: ``gkt --help`` loads this package and must not load torch.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(_WHERE[name]), name)
