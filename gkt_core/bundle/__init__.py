"""What gkt export writes and a device opens: manifest, state, template, ONNX Runtime."""
