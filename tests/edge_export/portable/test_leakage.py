"""The penalty on leakage in a device's step: PyTorch's loss and gradient, whatever runs it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_export import ExportOptions, export_bundle
from edge_export.portable.network import PortableNetwork
from edge_export.portable.step import initial_vectors, state_layout, train_step_model
from gkt_core.bundle.manifest import Bundle, Manifest, load_bundle
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.bundle.run_checks import check_run
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ArtifactError, ConfigError
from gkt_core.nn import build_edge_network, edge_loss
from gkt_core.nn.losses import distance_correlation
from tests.edge_export.portable.batches import batch_of, gradient_of

WEIGHT, SIZE = 0.5, 16


@pytest.mark.parametrize("low_memory", [False, True], ids=["plain", "low memory"])
@pytest.mark.parametrize("name", ["resnet8", "resnet8-tied", "resnet8-8x8x8"])
def test_the_steps_gradient_is_that_of_float64(name: str, low_memory: bool) -> None:
    network = build_edge_network(name, 10, seed=1)
    state = {n: v.detach().clone() for n, v in network.state_dict().items() if "num_batches" not in n}
    layout = state_layout(state, EdgeOptimizer())
    model = train_step_model(
        PortableNetwork(network, name, SIZE),
        layout,
        EdgeOptimizer(),
        num_classes=10,
        temperature=3.0,
        leakage_penalty=WEIGHT,
        low_memory=low_memory,
    )
    session = onnxruntime_module().InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    exact = network.double().train()
    for num in (2, 37):
        images, labels, teacher = batch_of(num, SIZE)
        given = {"images": images, "labels": labels, "server_logits": teacher}
        given |= {
            name: np.array(value, np.float32) for name, value in (("alpha", 1), ("learning_rate", 1e-3))
        }
        outputs = [each.name for each in session.get_outputs()]
        made = dict(zip(outputs, session.run(None, given | initial_vectors(state, layout)), strict=True))
        exact.load_state_dict(state, strict=False)
        exact.zero_grad()
        pixels = torch.from_numpy(images).double()
        features, logits = exact(pixels)
        loss = edge_loss(logits, torch.from_numpy(labels), torch.from_numpy(teacher).double(), 1.0, 3.0)
        bare = loss.item()
        loss = loss + WEIGHT * distance_correlation(pixels, features)
        torch.autograd.backward(loss)
        wanted = np.concatenate([gradient_of(each).reshape(-1) for each in exact.parameters()])
        assert float(made["loss"]) == pytest.approx(loss.item(), rel=1e-5)
        assert loss.item() > bare + 0.1
        apart = np.linalg.norm(made["gradient"] - wanted) / np.linalg.norm(wanted)
        assert apart < 1e-4, (num, apart)


@pytest.mark.system
def test_both_engines_are_proved_with_it_and_a_run_must_want_it(tmp_path: Path) -> None:
    """The export itself holds every engine to float64, and fails if one is further than it may be."""
    options = ExportOptions(
        edge_network="resnet8-8x8x8", image_size=SIZE, num_classes=4, leakage_penalty=WEIGHT
    )
    manifest = export_bundle(options, tmp_path / "b", verify="quick")
    assert set(manifest.verification) == set(manifest.engines)
    loaded = load_bundle(tmp_path / "b").manifest
    assert loaded.leakage_penalty == WEIGHT
    check_run(loaded, RunConfig(leakage_penalty=WEIGHT))
    with pytest.raises(ConfigError, match=r"wants the leakage penalty 0, .* with 0\.5: export .* --leakage"):
        check_run(loaded, RunConfig())


def test_a_manifest_without_it_says_nothing_of_it(digits_bundle: Bundle) -> None:
    """So devices of the version before read it."""
    manifest = digits_bundle.manifest
    assert "leakage_penalty" not in manifest.to_dict()
    with_one = dataclasses.replace(manifest, leakage_penalty=0.25)
    assert Manifest.from_dict(with_one.to_dict()) == with_one
    with pytest.raises(ArtifactError, match="leakage_penalty is -1"):
        Manifest.from_dict(with_one.to_dict() | {"leakage_penalty": -1.0})
