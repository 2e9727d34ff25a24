"""The whole training step as one file of standard ONNX operators, for any ONNX Runtime."""
