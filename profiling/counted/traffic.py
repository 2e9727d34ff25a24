"""Bytes of a whole training by formula: FedGKT, split learning and FedAvg, for any number of anything.

All of them count both directions and all devices. Bytes a value: features by codec, logits and gradients
4 (float32), labels 8 and sample ids 8 (int64), weights 4.

FedGKT (Eq. 13 of the paper in words: feature maps up and soft labels down, a sample and round)::

    uploads x (N + V) x (features x r + logits + label + id)       up, r = compression ratio
    (downloads) x N x (logits + id)                                down, downloads = uploads - 1
    devices x (bundle + model)                                     once each, if they are counted

Split learning (Eq. 12: feature maps up, their gradients down, and the label up, a sample and epoch)::

    epochs x N x (features + label + features)

FedAvg (weights down and up, a device and round)::

    rounds x devices x 2 x (parameters + running statistics)

N are training samples, V validation samples, which FedGKT sends as well, because the server validates on
them. The last round's soft labels are never fetched: nobody trains with them any more. The paper counts
neither labels nor ids nor validation samples; :func:`paper_bytes` does as the paper does.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.run_config import CODECS, check_image_size
from gkt_core.errors import ConfigError
from gkt_core.networks import EDGE_LAYOUTS, check_num_classes
from profiling.counted.message_sizes import (
    LABEL_BYTES,
    LOGIT_BYTES,
    SAMPLE_ID_BYTES,
    encoded_feature_bytes,
)

WEIGHT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Deployment:
    """A training to count the bytes of.

    Attributes:
        num_examples: Training samples of all devices together.
        num_validation_examples: Validation samples of all devices together.
        num_clients: Devices.
        rounds: Communication rounds; epochs of split learning.
        uploads: Rounds after which FedGKT's devices upload features, 1 to ``rounds``.
        codec: How features travel.
        compression_ratio: Bytes sent over bytes encoded; 1 without compression.
        image_size: Pixels.
        edge_network: What FedGKT's devices train, and split learning's are the beginning of; its tap is what
            is sent.
        features: ``[C, H, W]`` of one sample's features, of a run that says so; else what the tap of
            ``edge_network`` gives.
        num_classes: Width of the logits.
        num_parameters: Of the network that FedAvg's devices train.
        num_statistics: Running means and variances of that network, which FedAvg sends as well.
        device_once_bytes: Bundle and final model of one device of FedGKT; 0 to leave them out.
    """

    num_examples: int = option(50_000, low=1)
    num_validation_examples: int = option(0, low=0)
    num_clients: int = option(16, low=1)
    rounds: int = option(200, low=1)
    uploads: int = option(200, low=1)
    codec: str = option("fp32", choices=CODECS)
    # Zstandard adds a few bytes to what it cannot shorten.
    compression_ratio: float = option(1.0, above=0, high=1.01)
    image_size: int = 32
    edge_network: str = option("resnet8", choices=tuple(EDGE_LAYOUTS))
    features: list[int] | None = None
    num_classes: int = 10
    num_parameters: int = option(591_322, low=1)
    num_statistics: int = option(0, low=0)
    device_once_bytes: int = option(0, low=0)

    def __post_init__(self) -> None:
        """Refuse deployments that cannot be: a ConfigError names the value and what is expected."""
        check_options(self, named=lambda field: field.name.replace("num_", "number of ").replace("_", " "))
        if self.uploads > self.rounds:
            raise ConfigError(f"uploads is {self.uploads}, expected 1 to {self.rounds}, the number of rounds")
        check_image_size(self.image_size)
        check_num_classes(self.num_classes)

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """At the tap."""
        if self.features is not None:
            channels, height, width = self.features
            return channels, height, width
        return EDGE_LAYOUTS[self.edge_network].feature_shape(self.image_size)

    @property
    def raw_feature_bytes(self) -> int:
        """One sample's features in float32."""
        return encoded_feature_bytes("fp32", self.feature_shape)

    @property
    def logit_bytes(self) -> int:
        """One sample's logits in float32."""
        return LOGIT_BYTES * self.num_classes

    @property
    def upload_bytes_per_sample(self) -> float:
        """What one sample costs FedGKT in one upload."""
        features = encoded_feature_bytes(self.codec, self.feature_shape)
        return features * self.compression_ratio + self.logit_bytes + LABEL_BYTES + SAMPLE_ID_BYTES

    @property
    def download_bytes_per_sample(self) -> int:
        """What the server's answer to one sample costs."""
        return self.logit_bytes + SAMPLE_ID_BYTES

    @property
    def model_bytes(self) -> int:
        """One network of FedAvg, one way."""
        return WEIGHT_BYTES * (self.num_parameters + self.num_statistics)


def fedgkt_bytes(deployment: Deployment) -> dict[str, float]:
    """FedGKT as this product sends it: ``upload``, ``download`` and ``once``."""
    sent = deployment.num_examples + deployment.num_validation_examples
    return {
        "upload": deployment.uploads * sent * deployment.upload_bytes_per_sample,
        "download": (deployment.uploads - 1) * deployment.num_examples * deployment.download_bytes_per_sample,
        "once": float(deployment.num_clients * deployment.device_once_bytes),
    }


def split_learning_bytes(deployment: Deployment) -> dict[str, float]:
    """Split learning for as many epochs as there are rounds: ``upload`` and ``download``."""
    features = deployment.rounds * deployment.num_examples * deployment.raw_feature_bytes
    labels = deployment.rounds * deployment.num_examples * LABEL_BYTES
    return {"upload": float(features + labels), "download": float(features), "once": 0.0}


def fedavg_bytes(deployment: Deployment) -> dict[str, float]:
    """FedAvg with all devices in every round: ``upload`` and ``download``."""
    one_way = float(deployment.rounds * deployment.num_clients * deployment.model_bytes)
    return {"upload": one_way, "download": one_way, "once": 0.0}


def paper_bytes(deployment: Deployment) -> dict[str, float]:
    """Eq. 12 and 13 as the paper counts: no labels, ids, validation samples, codec or compression."""
    both_ways = 2 * deployment.raw_feature_bytes
    return {
        "split_learning": float(deployment.rounds * deployment.num_examples * both_ways),
        "fedgkt": float(
            deployment.rounds
            * deployment.num_examples
            * (deployment.raw_feature_bytes + 2 * deployment.logit_bytes)
        ),
    }


def break_even_samples(deployment: Deployment) -> float:
    """Samples a device below which FedGKT sends less than FedAvg, both directions counted.

    Both sides are linear: FedAvg costs a device ``2 x rounds x model``, whatever it holds; FedGKT what its
    samples cost, and what comes once. Validation samples are taken to grow with the training samples.

    Returns:
        Training samples a device; 0 if the bundle and model alone cost more than FedAvg does.
    """
    share = deployment.num_validation_examples / deployment.num_examples
    per_sample = deployment.uploads * (1 + share) * deployment.upload_bytes_per_sample
    per_sample += (deployment.uploads - 1) * deployment.download_bytes_per_sample
    budget = 2 * deployment.rounds * deployment.model_bytes - deployment.device_once_bytes
    return max(0.0, budget / per_sample)


def predict(deployment: Deployment) -> dict[str, Any]:
    """Everything above as one JSON-compatible object."""
    methods = {
        "fedgkt": fedgkt_bytes(deployment),
        "split_learning": split_learning_bytes(deployment),
        "fedavg": fedavg_bytes(deployment),
    }
    totals = {name: sum(parts.values()) for name, parts in methods.items()}
    return {
        "deployment": dataclasses.asdict(deployment),
        "per_sample_upload_bytes": deployment.upload_bytes_per_sample,
        "per_sample_download_bytes": deployment.download_bytes_per_sample,
        "model_bytes": deployment.model_bytes,
        "methods": [
            {
                "name": name,
                "upload_bytes": parts["upload"],
                "download_bytes": parts["download"],
                "once_bytes": parts["once"],
                "total_bytes": totals[name],
                "total_bytes_per_device": totals[name] / deployment.num_clients,
                "times_fedavg": totals[name] / totals["fedavg"],
            }
            for name, parts in methods.items()
        ],
        "paper_bytes": paper_bytes(deployment),
        "break_even_samples_per_device": break_even_samples(deployment),
        "samples_per_device": deployment.num_examples / deployment.num_clients,
    }
