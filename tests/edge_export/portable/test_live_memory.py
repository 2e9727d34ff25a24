"""What lives at once in a portable graph: by hand, and of real files."""

from __future__ import annotations

import onnx
import pytest

from edge_export.portable.graph import Graph
from edge_export.portable.live_memory import batch_bytes
from gkt_core.bundle.manifest import PREDICT, TRAIN_STEP, Bundle


def test_values_live_from_their_node_to_their_last_user() -> None:
    graph = Graph("hand")
    images = graph.input("images", ("N", 10))
    doubled = graph.op("Mul", images, graph.constant(2.0))
    wide = graph.op("Concat", doubled, doubled, doubled, axis=1)
    narrow = graph.sum(wide, (1,))
    graph.output(graph.op("Add", narrow, narrow), "out", ("N",))
    # Three times ten floats beside the ten that they are made of; images and sums live at other times.
    assert batch_bytes(graph.model()) == (4 * 40, 0)


def test_what_is_wanted_in_the_end_is_kept() -> None:
    graph = Graph("kept")
    images = graph.input("images", ("N", 10))
    early = graph.op("Relu", images)
    late = graph.op("Concat", early, early, early, axis=1)
    graph.output(early, "early", ("N", 10))
    graph.output(graph.op("Neg", late), "late", ("N", 30))
    assert batch_bytes(graph.model())[0] == 4 * (10 + 30 + 30)


def test_a_phase_counts_what_it_makes_for_the_images_that_it_has(small_bundle: Bundle) -> None:
    step, passing = batch_bytes(onnx.load(small_bundle.file(TRAIN_STEP)))
    predict, none = batch_bytes(onnx.load(small_bundle.file(PREDICT)))
    # Of 8 by 8 pixels: the features alone are 16 channels, and training keeps several such values.
    features = 4 * 16 * 8 * 8
    assert 3 * features < step < 40 * features
    assert features < passing < 40 * features
    assert 2 * features <= predict < step and none == 0


@pytest.mark.parametrize("name", ["relu", "mul"])
def test_values_without_a_row_for_each_image_do_not_count(name: str) -> None:
    graph = Graph("weights")
    images = graph.input("images", ("N", 2))
    weights = graph.input("weights", (1000,))
    made = graph.op("Relu", weights) if name == "relu" else graph.op("Mul", weights, weights)
    total = graph.op("Mul", graph.op("ReduceSum", made, keepdims=0), images)
    graph.output(total, "out", ("N", 2))
    assert batch_bytes(graph.model())[0] == 4 * (2 + 2)
