"""Torch and onnx in, files out that a device trains with. Never installed on a device."""

from edge_export.bundle import ExportOptions, export_bundle

__all__ = ["ExportOptions", "export_bundle"]
