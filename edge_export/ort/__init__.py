"""Artifacts for ONNX Runtime training: its graph of a step, its checkpoint, its file format."""
