"""Torch and onnx in, files out that a device trains with. Never installed on a device.

The names are imported when they are used: ``gkt --help`` loads this package and must not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_export.bundle import export_bundle
    from edge_export.options import ExportOptions

__all__ = ["ExportOptions", "export_bundle"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edge_export import bundle  # noqa: PLC0415 - imports torch

    return getattr(bundle, name)
