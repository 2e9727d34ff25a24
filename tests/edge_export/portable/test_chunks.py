"""A step that runs a few images at a time is the step over the whole batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edge_export import ExportOptions, export_bundle
from edge_export.portable.network import PortableNetwork
from edge_export.portable.phases import FlatStep, plan_phases
from edge_export.portable.step import initial_vectors, state_layout, train_step_model
from edge_runtime.engines.portable import PortableEngine
from gkt_core.bundle.manifest import PREDICT, TRAIN_STEP, Bundle, load_bundle
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.errors import ConfigError
from gkt_core.nn import build_edge_network
from tests.edge_export.portable.batches import batch_of
from tests.edge_export.portable.conftest import SMALL


def resnet8_step(
    monkeypatch: pytest.MonkeyPatch | None = None, *, low_memory: bool = False
) -> tuple[onnx.ModelProto, dict[str, NDArray[np.generic]]]:
    """The step of a ResNet-8 and its initial vectors; over the whole batch at once if given a monkeypatch."""
    network, optimizer = build_edge_network("resnet8", 10), EdgeOptimizer()
    state = {n: v.detach() for n, v in network.state_dict().items() if "num_batches" not in n}
    walked, layout = PortableNetwork(network, "resnet8", 32), state_layout(state, optimizer)
    if monkeypatch is not None:
        monkeypatch.setattr("edge_export.portable.step.in_chunks", lambda model, low_memory: model)
    model = train_step_model(
        walked, layout, optimizer, num_classes=10, temperature=3.0, low_memory=low_memory
    )
    return model, initial_vectors(state, layout)


@pytest.mark.parametrize("low_memory", [False, True], ids=["plain", "low memory"])
def test_a_few_images_at_a_time_are_the_whole_batch_at_once(
    low_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks that fit, that do not, one chunk, one image: every output, and no row of the filling."""
    ort = onnxruntime_module()
    chunked, vectors = resnet8_step(low_memory=low_memory)
    whole, _ = resnet8_step(monkeypatch)
    sessions = [
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for model in (whole, chunked)
    ]
    names = [output.name for output in whole.graph.output]
    assert [output.name for output in chunked.graph.output] == names
    one = np.array(1.0, np.float32)
    for num in (1, 3, 4, 5, 9, 16):
        images, labels, teacher = batch_of(num, 32)
        inputs: dict[str, Any] = {"images": images, "labels": labels, "server_logits": teacher, "alpha": one}
        inputs |= {"learning_rate": one} | vectors
        made = [session.run(names, inputs) for session in sessions]
        for name, left, right in zip(names, *made, strict=True):
            assert left.shape == right.shape
            limit = 1e-5 * float(np.abs(left).max(initial=0)) + 1e-7
            # Adam's first step is the sign of the gradient, which rounding turns where there is none.
            if name != "next_parameters":
                assert np.abs(left - right).max() <= limit, (num, name)


def test_low_memory_keeps_nothing_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides a step's memory: values between the phases. 64 channels of 32 by 32 pixels are wide."""
    flat = FlatStep(resnet8_step(monkeypatch)[0])
    kept = {}
    for low_memory in (False, True):
        phases = plan_phases(flat, low_memory=low_memory).phases
        kept[low_memory] = [int(np.prod(flat.sample_shape(name))) for part in phases for name in part.gives]
    assert max(kept[False]) == 64 * 32 * 32
    assert max(kept[True]) == 16 * 32 * 32
    assert sum(kept[True]) < 0.5 * sum(kept[False])


def test_a_step_of_low_memory_is_another_file_that_trains(small_bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    options = dataclasses.replace(SMALL, low_memory=True)
    assert "portable" in export_bundle(options, folder).verification
    assert (folder / TRAIN_STEP).read_bytes() != (small_bundle.path / TRAIN_STEP).read_bytes()
    assert (folder / PREDICT).read_bytes() == (small_bundle.path / PREDICT).read_bytes()
    engine = PortableEngine(load_bundle(folder))
    losses = [engine.train_step(*batch_of(8, 8, 3), 1.0)[0] for _ in range(10)]
    assert losses[-1] < losses[0]


def test_low_memory_without_the_portable_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="--low-memory is for the portable step"):
        ExportOptions(engines=("ort_training",), low_memory=True)
