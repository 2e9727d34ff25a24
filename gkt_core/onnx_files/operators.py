"""Which operators an ONNX file may have: arithmetic alone, nothing that reads files or runs code.

What exports of gkt use, and what convolutional networks of one's own are made of. ``Scan`` goes over the four
images of a chunk; no other operator holds a graph. ``Loop``, ``If``, ``Tile``, ``ConstantOfShape``,
``Resize`` and random numbers are missing on purpose, as is every operator of ``com.microsoft`` that could
load something (``PythonOp``, ``EPContext``) and ``org.pytorch.aten``.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

# Domain, then names; "" is ai.onnx.
Operators = Mapping[str, Set[str]]

_EXPORTED = frozenset((
    "Add", "BatchNormalization", "Cast", "Concat", "Constant", "Conv", "ConvTranspose", "Div",
    "Exp", "Expand", "Gather", "Gemm", "GlobalAveragePool", "HardSigmoid", "Identity", "LogSoftmax",
    "MatMul", "Max", "Mul", "Neg", "OneHot", "Pad", "Pow", "Reciprocal", "ReduceMean", "ReduceSum",
    "Relu", "Reshape", "Scan", "Shape", "Size", "Slice", "SoftmaxCrossEntropyLoss", "Split", "Sqrt",
    "Sub", "Sum", "Transpose", "Unsqueeze",
))  # fmt: skip
_OF_OWN_NETWORKS = frozenset((
    "Abs", "AveragePool", "Clip", "Dropout", "Elu", "Erf", "Flatten", "Gelu", "GlobalMaxPool",
    "GroupNormalization", "HardSwish", "InstanceNormalization", "LayerNormalization", "LeakyRelu",
    "Log", "MaxPool", "Min", "PRelu", "ReduceMax", "Sigmoid", "Softmax", "Softplus", "Squeeze",
    "Tanh",
))  # fmt: skip
_QUANTISED = frozenset(("QuantizeLinear", "DequantizeLinear"))
_STANDARD = _EXPORTED | _OF_OWN_NETWORKS
_OF_TRAINING = frozenset((
    "AveragePoolGrad", "BatchNormInternal", "BatchNormalizationGrad", "BiasGeluGrad_dX",
    "BitmaskDropout", "BitmaskDropoutGrad", "ConcatTraining", "ConvGrad", "ConvTransposeGrad",
    "DivGrad", "DropoutGrad", "FastGeluGrad", "GatherElementsGrad", "GatherGrad", "GeluGrad",
    "InPlaceAccumulatorV2", "LayerNormalizationGrad", "LeakyReluGrad", "LogSoftmaxGrad",
    "LogSoftmaxGrad_13", "MaxPoolGrad", "QuickGelu", "QuickGeluGrad", "ReluGrad", "Scale",
    "SigmoidGrad", "SliceGrad", "SoftmaxCrossEntropyLossGrad", "SoftmaxGrad", "SoftmaxGrad_13",
    "SplitTraining", "TanhGrad",
))  # fmt: skip
_OF_OPTIMIZERS = frozenset(("AdamWOptimizer", "SGDOptimizerV2"))

STANDARD: Operators = {"": _STANDARD}
TRAINING: Operators = {"": _STANDARD, "com.microsoft": _OF_TRAINING}
OPTIMIZER: Operators = {"": frozenset(("Identity", "Constant")), "com.microsoft": _OF_OPTIMIZERS}
# By the file's name in a bundle; others are STANDARD.
OF_FILES: Mapping[str, Operators] = {"training_model.onnx": TRAINING, "optimizer_model.onnx": OPTIMIZER}
# A combined model, also as gkt deploy writes it.
DEPLOYED: Operators = {"": _STANDARD | _QUANTISED}
