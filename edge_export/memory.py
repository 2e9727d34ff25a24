"""Estimate what training takes before anything is trained, from the graphs and the networks themselves.

What lives at once is counted; how much more of the system's memory that takes was measured at 32, 96 and 224
pixels, and ``gkt profile memory`` holds estimates and peaks side by side.
"""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from torch import nn

from edge_export.options import ExportOptions
from edge_export.portable.chunks import images_of_a_chunk
from edge_export.portable.live_memory import batch_bytes
from gkt_core.bundle.manifest import ENGINE_FILES, PORTABLE, PREDICT, TRAIN_STEP
from gkt_core.bundle.memory import TRAINER, MemoryNeed, MemoryPlan, images_at_once
from gkt_core.nn import EdgeNetwork, feature_shape
from gkt_core.nn.live_memory import live_bytes

# A device's process with its libraries, and the trainer's, of which PyTorch's build for GPUs is most.
_DEVICE_BYTES, _TRAINER_BYTES = 120_000_000, 900_000_000
# Memory over what lives at once. ONNX Runtime's arena leaves gaps between values of many lengths, and a fifth
# more once a batch has another size than the one before, as the last of an epoch has. The trainer
# keeps what it has freed for its next step (gkt_core.nn.execution.keep_freed_memory), with gaps that take as
# much again; giving it back took half the memory and 1.6 to 1.8 times the processor's time.
_OF_PORTABLE, _OF_ORT_TRAINING, _OF_TRAINER = 1.7, 1.3, 2.2
# Beside its place in a batch an image is there as it is drawn: padded, cropped, mirrored, and as float.
_DRAWN_BYTES_OF_A_VALUE = 16
# Features as float, and what the codec makes of them in passing.
_ENCODED_BYTES_OF_A_VALUE = 16
# Weights, gradients and what Adam keeps, AMSGrad included.
_BYTES_OF_A_PARAMETER = 20


def estimate_memory(folder: Path, options: ExportOptions, edge: EdgeNetwork, server: nn.Module) -> MemoryPlan:
    """Estimate the memory of each engine that a bundle has files for, and of the trainer.

    Args:
        folder: With the portable engine's files, if the bundle is to have it.
        options: What is exported.
        edge: The devices' network.
        server: What is trained on its features.

    Raises:
        Exception: A network of a user's own cannot be followed without being run.
    """
    features = feature_shape(edge, options.image_size)
    needs = {
        engine: _of_device(folder, options, edge, math.prod(features), engine)
        for engine in ENGINE_FILES
        if engine in options.engines
    }
    engine = next(iter(needs))
    image, passing = _of_step(server, features)
    fixed = _TRAINER_BYTES + _OF_TRAINER * passing + _BYTES_OF_A_PARAMETER * _num_parameters(server)
    # A sample of a batch is there as it was decoded as well.
    needs[TRAINER] = MemoryNeed(int(fixed), int(_OF_TRAINER * image + 8 * math.prod(features)))
    return MemoryPlan(needs, engine, options.memory_limit_mb, options.trainer_memory_mb)


def _of_device(
    folder: Path, options: ExportOptions, edge: EdgeNetwork, num_features: int, engine: str
) -> MemoryNeed:
    size = options.image_size
    if engine == PORTABLE:
        image, in_chunk = batch_bytes(onnx.load(folder / TRAIN_STEP))
        passing, extracted = (
            in_chunk * images_of_a_chunk(size, size),
            batch_bytes(onnx.load(folder / PREDICT))[0],
        )
        factor = _OF_PORTABLE
    else:
        image, passing = _of_step(edge, (3, size, size))
        extracted, factor = live_bytes(edge, (3, size, size), 1, training=False), _OF_ORT_TRAINING
    return MemoryNeed(
        fixed_bytes=int(_DEVICE_BYTES + factor * passing + _BYTES_OF_A_PARAMETER * _num_parameters(edge)),
        image_bytes=int(factor * image + _DRAWN_BYTES_OF_A_VALUE * 3 * size**2),
        extracted_bytes=int(factor * extracted),
        extracted_at_once=images_at_once(size),
        sample_bytes=_ENCODED_BYTES_OF_A_VALUE * num_features,
    )


def _of_step(network: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """Bytes for each image of a batch, and whatever the batch."""
    two, four = (live_bytes(network, shape, batch_size) for batch_size in (2, 4))
    image = (four - two) // 2
    return image, max(0, two - 2 * image)


def _num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
