"""Record how large a bundle's features and logits may become, for the server to refuse larger ones."""

from __future__ import annotations

import torch

from gkt_core.nn.building import EdgeNetwork

# What training makes of a network's first outputs stays far within; sums of their squares stay finite.
_LEAST, _FACTOR = 1e4, 1e3


def output_bounds(edge: EdgeNetwork, images: torch.Tensor) -> dict[str, float]:
    """Look at what a network gives at first, and leave room for what training makes of it.

    Args:
        edge: The network to export.
        images: ``[N, 3, S, S] float32`` in 0..1.

    Returns:
        The greatest magnitude of ``features`` and of ``logits``.
    """
    was_training = edge.training
    edge.eval()
    with torch.no_grad():
        outputs = dict(zip(("features", "logits"), edge(images), strict=True))
    edge.train(was_training)
    return {name: max(_LEAST, _FACTOR * float(value.abs().max())) for name, value in outputs.items()}
