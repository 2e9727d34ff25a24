"""Registers a server network of a thousand weights in each Python process that has this folder on its path.

A run folder with ResNet-55 and its optimizer is 9 MB, too much to keep; ``gkt serve`` has no ``--networks``.
"""

from __future__ import annotations

from typing import Any

from gkt_core.networks import register_server_network


def build(num_classes: int) -> Any:
    """Features ``[N, 16, 8, 8]`` to logits ``[N, num_classes]``, batch normalisation between."""
    from torch import nn  # noqa: PLC0415 - no device loads it

    return nn.Sequential(
        nn.Conv2d(16, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, num_classes),
    )


register_server_network("small_server", build)
