"""Sums over the pixels of large images are as near to float64 as those of small ones."""

from __future__ import annotations

import numpy as np
import pytest

from edge_export.portable.graph import Graph
from gkt_core.bundle.onnx_runtime import cpu_session, session_options


@pytest.mark.parametrize("size", [32, 64, 96, 224, 256])
def test_rounding_does_not_grow_with_the_image(size: int) -> None:
    """What the mean over all pixels gives back is one value, which rounds alike again and again."""
    shape = (4, size, size)
    graph = Graph("sum")
    total = graph.sum_images(graph.input("x", ("N", *shape)), shape)
    graph.output(total, "total", (shape[0],))
    session = cpu_session(graph.model().SerializeToString(), session_options())
    furthest = 0.0
    for seed in range(20):
        each = np.random.default_rng(seed).random((2, shape[0], 1, 1), np.float32)
        x = np.broadcast_to(each, (2, *shape)).copy()
        (summed,) = session.run(None, {"x": x})
        exact = x.sum(axis=(0, 2, 3), dtype=np.float64)
        furthest = max(furthest, float((np.abs(summed - exact) / exact).max()))
    assert furthest < 1e-5
