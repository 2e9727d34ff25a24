"""ONNX files from others, read by their bytes alone and judged before ONNX Runtime opens them."""
