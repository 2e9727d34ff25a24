"""Labels that a device does not say for certain: randomised response (Warner, 1965), drawn once a sample.

With epsilon e and C classes a label stays with chance ``exp(e) / (exp(e) + C - 1)``, and is otherwise each of
the others alike. Whatever a device does after that, local training included, it does with these labels: what
leaves it, in all rounds together, tells any two labels of a sample apart by a factor of exp(e) at most (local
differential privacy of labels). Images and features are not covered.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.errors import ConfigError
from gkt_core.wire.feature_noise import KEY_BYTES, FeatureNoise


def chance_kept(epsilon: float, num_classes: int) -> float:
    """Say with what chance a label stays; 1 where it is not randomised."""
    return 1.0 if epsilon == 0 else 1 / (1 + (num_classes - 1) * math.exp(-epsilon))


def randomised_labels(
    labels: NDArray[np.int64],
    sample_ids: NDArray[np.int64],
    *,
    num_classes: int,
    epsilon: float,
    key: bytes,
) -> NDArray[np.int64]:
    """Draw each label's response: a pure function of (key, sample_id), whenever it is drawn.

    Args:
        labels: ``[n] int64``, below ``num_classes``.
        sample_ids: ``[n] int64``.
        num_classes: At least 2.
        epsilon: Above 0.
        key: A secret of the device, without which nobody draws this again.

    Raises:
        ConfigError: There is no such key.
    """
    if len(key) != KEY_BYTES:
        raise ConfigError(f"the key of the labels has {len(key)} bytes, expected {KEY_BYTES}")
    kept = chance_kept(epsilon, num_classes)
    responses = labels.copy()
    for row, sample_id in enumerate(sample_ids):
        name = b"gkt label privacy" + key + int(sample_id).to_bytes(8, "little", signed=True)
        digest = hashlib.shake_256(name).digest(16)
        if int.from_bytes(digest[:8], "little") >= kept * 2.0**64:
            other = int.from_bytes(digest[8:], "little") % (num_classes - 1)
            responses[row] = (labels[row] + 1 + other) % num_classes
    return responses


def with_private_labels(data: PrivateData, noise: FeatureNoise, num_classes: int) -> PrivateData:
    """Exchange all labels of a device for their responses, if its owner wants that."""
    if not noise.label_privacy:
        return data

    def exchanged(samples: Samples) -> Samples:
        labels = randomised_labels(
            samples.labels,
            samples.sample_ids,
            num_classes=num_classes,
            epsilon=noise.label_privacy,
            key=noise.key,
        )
        return replace(samples, labels=labels)

    return replace(data, train=exchanged(data.train), validation=exchanged(data.validation))
