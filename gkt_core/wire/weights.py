"""A network's weights as devices of FedAvg would send them: codecs of features, Zstandard, counted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gkt_core.wire.codec import decode, encode
from gkt_core.wire.compression import compress

Weights = Mapping[str, NDArray[np.float32]]


def num_wire_bytes(arrays: Mapping[str, NDArray[np.generic]], *, compressed: bool) -> int:
    """Count the bytes of arrays, one behind the other and with Zstandard, as shards have it."""
    data = b"".join(np.ascontiguousarray(value).tobytes() for value in arrays.values())
    return len(compress(data)) if compressed else len(data)


def send_weights(
    weights: Weights, codec: str, *, compressed: bool, received: Weights | None = None
) -> tuple[dict[str, NDArray[np.float32]], int]:
    """Encode weights and decode them: what arrives, and the bytes that it took.

    ``fp32`` is exact. The other codecs send the difference to what the other side has, which is small where
    the weights are not, with one scale per output channel.

    Args:
        weights: ``float32`` arrays of any shape, by name.
        codec: ``fp32``, ``fp16``, ``uint8`` or ``uint4``.
        compressed: With Zstandard.
        received: What the other side has; needed by all codecs but ``fp32``.

    Raises:
        CodecError: The codec cannot take these weights.
    """
    if codec == "fp32" or received is None:
        return dict(weights), num_wire_bytes(weights, compressed=compressed)
    arrived: dict[str, NDArray[np.float32]] = {}
    sent: dict[str, NDArray[np.generic]] = {}
    for name, value in weights.items():
        # As one sample of features: output channels are channels; biases and norms are one channel.
        shape = (1, len(value), 1, value[0].size) if value.ndim > 1 else (1, 1, 1, value.size)
        encoded = encode((value - received[name]).reshape(shape), codec)
        sent |= {
            f"{name}/values": encoded.values,
            f"{name}/scale": encoded.scale,
            f"{name}/offset": encoded.offset,
        }
        arrived[name] = received[name] + decode(encoded, shape[1:]).reshape(value.shape)
    return arrived, num_wire_bytes(sent, compressed=compressed)
