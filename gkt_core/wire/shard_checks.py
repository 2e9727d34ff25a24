"""What a shard must be before any of its values is used: tensors, metadata, sample ids, finite numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import ShardError
from gkt_core.wire.shard_file import SHARD_VERSION

# Few enough for a processor's nearest cache.
_BLOCK_VALUES = 32 * 1024
_MOST_EPSILON = 50


def check_layout(
    tensors: Mapping[str, NDArray[Any]], layout: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    """Refuse tensors of other names, dtypes or shapes than these.

    Raises:
        ShardError: Says which tensor differs and how.
    """
    if set(tensors) != set(layout):
        raise ShardError(f"a shard holds {sorted(tensors)[:8]}, this run expects {sorted(layout)}")
    for name, (dtype, shape) in layout.items():
        tensor = tensors[name]
        if tensor.dtype != np.dtype(dtype) or tensor.shape != shape:
            raise ShardError(
                f"{name} is {tensor.dtype} {list(tensor.shape)}, this run expects {dtype} {list(shape)}: "
                "are device and server on the same artifacts?"
            )


def check_metadata(metadata: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a shard that says it is another one, or of another version.

    Raises:
        ShardError: Says what differs.
    """
    for name, value in {"version": SHARD_VERSION, **expected}.items():
        said = metadata.get(name)
        if type(said) is not type(value) or said != value:
            raise ShardError(f"the shard says {name} {str(said)[:60]!r}, expected {value!r}")


def label_epsilon_of(metadata: Mapping[str, Any]) -> float:
    """Read the epsilon of a shard's randomised labels; 0 where it says nothing.

    Raises:
        ShardError: It is none.
    """
    said = metadata.get("label_epsilon", 0.0)
    if type(said) not in (int, float) or not 0 <= said <= _MOST_EPSILON:
        raise ShardError(f"label_epsilon is {str(said)[:40]!r}, expected 0 to {_MOST_EPSILON}")
    return float(said)


def count_samples(tensors: Mapping[str, NDArray[Any]], max_samples: int | None) -> int:
    """Count the samples of a shard.

    Raises:
        ShardError: There are none, more than ``max_samples``, or one twice.
    """
    sample_ids = tensors.get("sample_ids")
    if sample_ids is None or sample_ids.ndim != 1 or sample_ids.dtype != np.int64:
        raise ShardError("sample_ids is missing, or not int64 [n]")
    num = int(sample_ids.shape[0])
    if num < 1 or (max_samples is not None and num > max_samples):
        raise ShardError(f"the shard holds {num} samples, expected 1 to {max_samples}")
    ordered = np.sort(sample_ids)
    if (ordered[1:] == ordered[:-1]).any():
        raise ShardError("sample_ids are not unique")
    return num


def check_magnitude(name: str, values: NDArray[Any], most: float) -> None:
    """Refuse floats that are not finite, or larger than a bundle's network gives.

    Args:
        name: Of the tensor.
        values: Of any shape; no array as long as they are is made.
        most: The greatest magnitude that is taken.

    Raises:
        ShardError: Says how large they are, and what is expected.
    """
    flat = values.reshape(-1)
    for begin in range(0, flat.size, _BLOCK_VALUES):
        block = flat[begin : begin + _BLOCK_VALUES]
        # NaN is the greatest and the least of what it is among.
        refuse_larger(name, max(abs(float(block.max())), abs(float(block.min()))), most)


def refuse_larger(name: str, magnitude: float, most: float) -> None:
    """Refuse a magnitude that is not finite, or larger than is taken.

    Raises:
        ShardError: As :func:`check_magnitude` does.
    """
    if not math.isfinite(magnitude):
        raise ShardError(f"{name} hold NaN or infinity")
    if magnitude > most:
        raise ShardError(
            f"{name} reach {magnitude:.3g}, this bundle's network stays within {most:.3g}: the local "
            "training diverged, lower edge_lr, or these are another network's"
        )
