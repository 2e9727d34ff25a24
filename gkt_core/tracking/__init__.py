"""Rounds in the tools that people have: TensorBoard, MLflow, Weights & Biases."""
