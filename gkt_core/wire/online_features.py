"""Features for online inference: one safetensors file with the single tensor ``features``.

Any language that has safetensors writes it: ``features`` is ``[n, C, H, W] float32``, what the extractor of
``gkt deploy --split`` gives for n images.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gkt_core.errors import MessageError

MAX_INFERENCE_SAMPLES = 64
_HEADER_BYTES = 16 * 1024


def max_inference_bytes(feature_shape: tuple[int, int, int]) -> int:
    """Compute the length of the longest body that :func:`read_features` takes."""
    return 4 * MAX_INFERENCE_SAMPLES * math.prod(feature_shape) + _HEADER_BYTES


def write_features(features: NDArray[np.float32]) -> bytes:
    """Encode ``[n, C, H, W] float32``."""
    return save({"features": np.ascontiguousarray(features)})


def read_features(data: bytes, feature_shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Decode ``[n, C, H, W] float32``, all finite, that :func:`write_features` or another language wrote.

    Raises:
        MessageError: Anything differs from what is expected; the message says what.
    """
    limit = max_inference_bytes(feature_shape)
    if len(data) > limit:
        raise MessageError(f"{len(data)} bytes of features, expected at most {limit}")
    try:
        tensors = load(data)
    # A dtype that numpy does not have is a KeyError or a TypeError.
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MessageError(f"the features are no safetensors file: {str(error)[:100]}") from error
    if set(tensors) != {"features"}:
        raise MessageError(f"the file holds {sorted(tensors)[:5]}, expected one tensor, features")
    features = tensors["features"]
    if features.dtype != np.float32 or features.shape[1:] != feature_shape or features.ndim != 4:
        raise MessageError(
            f"features are {features.dtype} {list(features.shape)}, expected float32 "
            f"{['N', *feature_shape]}: send what the extractor of this deployment gives"
        )
    if not 1 <= len(features) <= MAX_INFERENCE_SAMPLES:
        raise MessageError(f"features of {len(features)} samples, expected 1 to {MAX_INFERENCE_SAMPLES}")
    if not np.isfinite(features).all():
        raise MessageError("features hold NaN or infinity")
    return features
