"""The exported artifacts against the PyTorch model that they were made from, on real images.

The measure is float64: ONNX Runtime may be no further from it than twice PyTorch's own float32. PyTorch's
float32 is no single number either (layout and kernels change the order of sums), so the three that it
offers are run and the furthest counts, over several seeds.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_runtime.engines.ort_training import OrtTrainingEngine
from gkt_core.algorithms import TorchEngine
from gkt_core.bundle.manifest import COMBINED_TEMPLATE, EVAL_MODEL, Bundle
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.bundle.template import fill_template
from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.private_data import load_private_data
from gkt_core.nn import (
    CombinedNetwork,
    EdgeNetwork,
    build_edge_network,
    build_server_network,
    edge_loss,
)
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_round import client_update
from gkt_core.rounds.client_shards import shards
from gkt_core.wire.shards import SoftLabels

Arrays = dict[str, NDArray[np.float64]]
STEPS, BATCH, LEARNING_RATE = 20, 32, 1e-3
SEEDS = (0, 1, 2)


def edge_network(bundle: Bundle) -> EdgeNetwork:
    manifest = bundle.manifest
    return build_edge_network(
        manifest.edge_network,
        manifest.num_classes,
        pixel_mean=tuple(manifest.pixel_mean),
        pixel_std=tuple(manifest.pixel_std),
        seed=manifest.seed,
    )


@dataclass
class Trace:
    """What one engine did."""

    first_loss: float
    first_gradients: Arrays
    statistics: Arrays
    weights: Arrays
    features: NDArray[np.float64]
    logits: NDArray[np.float64]


Batch = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]


def batches_of(split: Path, seed: int) -> list[Batch]:
    data = load_private_data(split / "clients" / "client-000.npz").train
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(len(data))[:BATCH] for _ in range(STEPS)]
    teacher = [3 * rng.standard_normal((BATCH, 10)).astype(np.float32) for _ in range(STEPS)]
    return [
        (to_float_nchw(data.images[rows]), data.labels[rows], t)
        for rows, t in zip(chosen, teacher, strict=True)
    ]


@contextlib.contextmanager
def onednn(*, enabled: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        # torch 2.12 warns about Intel GPUs whenever these flags are touched.
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        with torch.backends.mkldnn.flags(enabled=enabled):
            yield


def run_torch(bundle: Bundle, batches: list[Batch], dtype: torch.dtype, *, layout: str = "nchw") -> Trace:
    network = edge_network(bundle).to(dtype)
    if layout == "channels_last":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    first_loss, first_gradients = 0.0, {}

    def tensor(images: NDArray[np.float32]) -> torch.Tensor:
        value = torch.from_numpy(images).to(dtype)
        return value.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else value

    with onednn(enabled=layout != "native"):
        for step, (images, labels, teacher) in enumerate(batches):
            optimizer.zero_grad()
            _, logits = network(tensor(images))
            loss = edge_loss(logits, torch.from_numpy(labels), torch.from_numpy(teacher).to(dtype), 1.0, 3.0)
            torch.autograd.backward(loss)
            if step == 0:
                first_loss = loss.item()
                first_gradients = {
                    n: p.grad.double().numpy() for n, p in network.named_parameters() if p.grad is not None
                }
                first_gradients = copy.deepcopy(first_gradients)
            optimizer.step()
        network.eval()
        with torch.no_grad():
            features, logits = network(tensor(batches[0][0]))
    state = {n: v.double().numpy() for n, v in network.state_dict().items() if "num_batches" not in n}
    return _trace(first_loss, first_gradients, state, features.double().numpy(), logits.double().numpy())


def run_ort(bundle: Bundle, batches: list[Batch]) -> Trace:
    engine = OrtTrainingEngine(bundle, learning_rate=LEARNING_RATE)
    first_loss, first_gradients = 0.0, {}
    for step, (images, labels, teacher) in enumerate(batches):
        loss, _ = engine.train_step(images, labels, teacher, 1.0)
        if step == 0:
            first_loss = loss
            first_gradients = {n: g.astype(np.float64) for n, g in engine.gradients().items()}
    features, logits = engine.predict(batches[0][0])
    state = {name: value.astype(np.float64) for name, value in engine.parameters().items()}
    return _trace(first_loss, first_gradients, state, features.astype(np.float64), logits.astype(np.float64))


def _trace(
    loss: float,
    gradients: Arrays,
    state: Arrays,
    features: NDArray[np.float64],
    logits: NDArray[np.float64],
) -> Trace:
    statistics = {name: value for name, value in state.items() if ".running_" in name}
    weights = {name: value for name, value in state.items() if ".running_" not in name}
    return Trace(loss, gradients, statistics, weights, features, logits)


def distance(found: Arrays, exact: Arrays) -> float:
    """Relative L2 distance over all tensors."""
    assert set(found) == set(exact)
    squares = sum(float(((found[name] - exact[name]) ** 2).sum()) for name in exact)
    return float(np.sqrt(squares / sum(float((value**2).sum()) for value in exact.values())))


def distances(found: Trace, exact: Trace) -> dict[str, float]:
    per_gradient = {
        f"gradient of {name}": distance(
            {name: found.first_gradients[name]}, {name: exact.first_gradients[name]}
        )
        for name in exact.first_gradients
    }
    return {
        "loss": abs(found.first_loss - exact.first_loss) / exact.first_loss,
        **per_gradient,
        "running statistics after 20 steps": distance(found.statistics, exact.statistics),
        "weights after 20 steps": distance(found.weights, exact.weights),
        "eval features": distance({"": found.features}, {"": exact.features}),
        "eval logits": distance({"": found.logits}, {"": exact.logits}),
    }


@pytest.fixture(scope="module")
def errors(digits_bundle: Bundle, digits_split: Path) -> dict[str, dict[str, list[float]]]:
    """Distances from float64 by quantity, engine and seed."""
    table: dict[str, dict[str, list[float]]] = {}
    for seed in SEEDS:
        data = batches_of(digits_split, seed)
        exact = run_torch(digits_bundle, data, torch.float64)
        engines = {
            "ort": run_ort(digits_bundle, data),
            **{
                layout: run_torch(digits_bundle, data, torch.float32, layout=layout)
                for layout in ("nchw", "channels_last", "native")
            },
        }
        for engine, trace in engines.items():
            for quantity, value in distances(trace, exact).items():
                table.setdefault(quantity, {}).setdefault(engine, []).append(value)
    return table


def test_no_further_from_float64_than_twice_pytorch_float32(
    errors: dict[str, dict[str, list[float]]],
) -> None:
    float32_noise = float(np.finfo(np.float32).eps)
    further = {}
    for quantity, by_engine in errors.items():
        ours = float(np.median(by_engine["ort"]))
        pytorch = max(float(np.median(values)) for engine, values in by_engine.items() if engine != "ort")
        if ours > 2 * max(pytorch, float32_noise):
            further[quantity] = (ours, pytorch)
    assert not further
    # Equal weights in, equal gradients out: the step itself is exact, not merely as noisy as PyTorch.
    assert max(float(np.median(v["ort"])) for q, v in errors.items() if q.startswith("gradient")) < 1e-3


def test_running_variance_is_unbiased(digits_bundle: Bundle, digits_split: Path) -> None:
    """One step: ONNX's own update is off by n / (n - 1), which the engine must mend."""
    (batch, *_) = batches_of(digits_split, 0)
    exact = run_torch(digits_bundle, [batch], torch.float64).statistics
    found = run_ort(digits_bundle, [batch]).statistics
    num = BATCH * 16 * 16
    for name in (n for n in exact if n.endswith("running_var")):
        biased = 0.9 + (exact[name] - 0.9) * (num - 1) / num
        assert np.abs(found[name] - exact[name]).max() < 0.1 * np.abs(biased - exact[name]).max()


def test_adam_adds_epsilon_after_bias_correction(digits_bundle: Bundle, digits_split: Path) -> None:
    """PyTorch's first step is lr * g / (|g| + eps); ONNX Runtime's default differs where g is small."""
    (batch, *_) = batches_of(digits_split, 0)
    engine = OrtTrainingEngine(digits_bundle, learning_rate=LEARNING_RATE)
    before = engine.parameters()
    engine.train_step(*batch, 1.0)
    after = engine.parameters()
    for name, gradient in engine.gradients().items():
        g = gradient.astype(np.float64)
        expected = LEARNING_RATE * g / (np.abs(g) + 1e-8)
        step = before[name].astype(np.float64) - after[name].astype(np.float64)
        # Weights near 1 hold a step of 1e-3 only to 6e-8.
        assert np.abs(step - expected).max() < 2e-7, name


def test_initialisers_equal_the_model(digits_bundle: Bundle) -> None:
    expected = {
        name: value.numpy()
        for name, value in edge_network(digits_bundle).state_dict().items()
        if "num_batches" not in name
    }
    found = OrtTrainingEngine(digits_bundle).parameters()
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
    assert all((found[name] == 0).all() for name in found if name.endswith("running_mean"))
    assert all((found[name] == 1).all() for name in found if name.endswith("running_var"))


def test_artifacts_load_in_older_runtimes(digits_bundle: Bundle) -> None:
    for name in ("training_model.onnx", EVAL_MODEL, "optimizer_model.onnx", COMBINED_TEMPLATE):
        model = onnx.load(digits_bundle.path / name)
        assert model.ir_version <= 10, name
    graph = onnx.load(digits_bundle.path / EVAL_MODEL).graph
    assert all(len(node.output) == 1 for node in graph.node if node.op_type == "BatchNormalization")


def test_device_equals_simulated_client(digits_bundle: Bundle, digits_split: Path) -> None:
    """The same round on ONNX Runtime and in PyTorch: same views, same order, same numbers."""
    data = load_private_data(digits_split / "clients" / "client-001.npz")
    config = RunConfig(horizontal_flip=False, crop_padding=1, batch_size=32)
    rng = np.random.default_rng(0)
    teacher = SoftLabels(data.train.sample_ids, rng.standard_normal((len(data.train), 10)).astype(np.float32))
    device = OrtTrainingEngine(digits_bundle, learning_rate=config.edge_lr)
    network = edge_network(digits_bundle)
    part = ClientPart("client-001", data, config, num_classes=10)
    simulated = TorchEngine(network, config)
    updates = [client_update(engine, part, teacher, round_num=2) for engine in (device, simulated)]
    assert updates[0].num_steps == updates[1].num_steps == 11
    assert updates[0].loss == pytest.approx(updates[1].loss, rel=1e-4)
    ours = {name: value.astype(np.float64) for name, value in device.parameters().items()}
    theirs = {name: network.state_dict()[name].double().numpy() for name in ours}
    assert distance(ours, theirs) < 5e-3
    pairs = zip(
        *(shards(engine, part, round_num=2, split="train") for engine in (device, simulated)),
        strict=True,
    )
    for ours_part, theirs_part in pairs:
        assert np.array_equal(ours_part.sample_ids, theirs_part.sample_ids)
        assert np.abs(ours_part.features - theirs_part.features).max() < 0.05


def test_filled_template_equals_the_combined_network(digits_bundle: Bundle, digits_split: Path) -> None:
    manifest = digits_bundle.manifest
    edge = edge_network(digits_bundle)
    server = build_server_network(manifest.server_network, manifest.num_classes, seed=5)
    combined = CombinedNetwork(edge.extractor, server, edge.normalise).eval()
    generator = torch.Generator().manual_seed(1)
    for name, value in combined.state_dict().items():
        if name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
        elif name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    tensors = {n: v.numpy() for n, v in combined.state_dict().items() if "num_batches" not in n}
    template = (digits_bundle.path / COMBINED_TEMPLATE).read_bytes()
    half = fill_template(template, manifest.slots(), tensors, "server.")
    whole = fill_template(half, manifest.slots(), tensors, "extractor.")
    model = onnx.load_from_string(whole)
    onnx.checker.check_model(model)
    stored = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    assert all(np.array_equal(stored[name], tensors[name]) for name in stored)
    data = load_private_data(digits_split / "clients" / "client-000.npz").train
    images = to_float_nchw(data.images[:7])
    session = onnxruntime_module().InferenceSession(whole, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images})
    with torch.no_grad():
        expected = combined(torch.from_numpy(images)).numpy()
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


def test_an_unfilled_template_cannot_pass_for_a_model(digits_bundle: Bundle) -> None:
    template = (digits_bundle.path / COMBINED_TEMPLATE).read_bytes()
    session = onnxruntime_module().InferenceSession(template, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": np.zeros((1, 3, 16, 16), np.float32)})
    assert np.isnan(logits).all()
