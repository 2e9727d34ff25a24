"""Features are the extractor's, computed by the device as well, and never the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edge_export import ExportOptions, export_bundle
from edge_runtime.engines.base import open_engine
from edge_runtime.engines.graph_trouble import graph_trouble_named
from edge_runtime.machine.limits import try_for_memory
from edge_runtime.trust.features import MOST_READABLE, GuardedEngine, readable_share
from edge_runtime.trust.known_networks import known_features, known_logits
from gkt_core.bundle.manifest import Bundle, Manifest, load_bundle
from gkt_core.errors import MemoryLimitError, UnsafeModelError
from gkt_core.networks import EDGE_LAYOUTS, NARROW_NETWORKS
from gkt_core.nn import build_edge_network
from tests.edge_runtime.hostile import (
    FEATURE_FILES,
    Change,
    changed_bundle,
    concatenated,
    copied_by_convolution,
    copying_weights,
    external_data,
    hidden_in_features,
    pixels_in_logits,
    pixels_of_the_dark,
    thinned_images,
)
from tests.server_app.server_fixtures import run_config

pytest_plugins = ["tests.server_app.server_fixtures"]
ENGINES = sorted(FEATURE_FILES)


def guarded(bundle: Bundle, engine: str) -> GuardedEngine:
    opened = open_engine(bundle, checkpoint=None, num_threads=1, learning_rate=1e-2, engine=engine)
    return GuardedEngine(opened, bundle.manifest)


def images_of(bundle: Bundle, num: int = 3) -> np.ndarray[Any, np.dtype[np.float32]]:
    side = bundle.manifest.image_size
    return np.random.default_rng(0).random((num, 3, side, side), dtype=np.float32)


@pytest.mark.parametrize("name", EDGE_LAYOUTS)
def test_the_extractor_is_pytorchs(name: str, server_bundle: Path) -> None:
    network = build_edge_network(name, 3, seed=1, pixel_mean=(0.1, 0.5, 0.7), pixel_std=(0.2, 0.3, 0.4))
    generator = torch.Generator().manual_seed(0)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for values in (value for norm in norms for value in (*norm.parameters(), *norm.buffers())):
        if values.is_floating_point():
            values.data.uniform_(0.5, 1.5, generator=generator)
    network.eval()
    images = torch.rand(5, 3, 12, 12, generator=generator)
    manifest = Manifest.from_dict(
        load_bundle(server_bundle).manifest.to_dict()
        | {"edge_network": name, "pixel_mean": [0.1, 0.5, 0.7], "pixel_std": [0.2, 0.3, 0.4]}
    )
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    with torch.no_grad():
        expected = network(images)[0].numpy()
    apart = known_features(images.numpy(), weights, manifest) - expected
    assert np.abs(apart).max() < 1e-5 * max(1, np.abs(expected).max())
    logits = known_logits(expected, weights, manifest)
    with torch.no_grad():
        expected_logits = network(images)[1].numpy()
    assert logits.shape == expected_logits.shape == (5, 3)
    assert np.abs(logits - expected_logits).max() < 1e-5 * max(1, np.abs(expected_logits).max())
    for missing in (name for name in weights if name.startswith("head") and "num_batches" not in name):
        fewer = {name: value for name, value in weights.items() if name != missing}
        for changed in (fewer, weights | {missing: weights[missing][:-1]}):
            with pytest.raises(
                UnsafeModelError, match=f"calls its network {name} and has another local head"
            ):
                known_logits(expected, changed, manifest)
    for missing in (name for name in weights if name.startswith("extractor") and "num_batches" not in name):
        fewer = {name: value for name, value in weights.items() if name != missing}
        other = weights | {missing: weights[missing][:-1]}
        for changed in (fewer, other):
            with pytest.raises(UnsafeModelError, match=f"calls its network {name} and has other first"):
                known_features(images.numpy(), changed, manifest)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_honest_engine_is_let_through_before_and_after_training(server_bundle: Path, engine: str) -> None:
    bundle = load_bundle(server_bundle)
    honest = guarded(bundle, engine)
    plain = open_engine(bundle, checkpoint=None, num_threads=1, learning_rate=1e-2, engine=engine)
    images = images_of(bundle)
    for _ in range(3):
        for ours, theirs in zip(honest.predict(images), plain.predict(images), strict=True):
            assert np.array_equal(ours, theirs)
        assert 0 < honest.readable < MOST_READABLE
        for each in (honest, plain):
            each.train_step(images, np.array([0, 1, 2]), np.zeros((3, 3), np.float32), 0.0)


@pytest.fixture(scope="module", params=NARROW_NETWORKS)
def narrow_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a narrow tap, for both engines."""
    out = tmp_path_factory.mktemp("narrow") / "bundle"
    export_bundle(ExportOptions(edge_network=request.param, num_classes=3, image_size=32), out, verify="none")
    return out


@pytest.mark.parametrize("engine", ENGINES)
def test_a_narrow_tap_is_computed_here_as_well(narrow_bundle: Path, engine: str, tmp_path: Path) -> None:
    bundle = load_bundle(narrow_bundle)
    assert bundle.manifest.feature_shape == EDGE_LAYOUTS[bundle.manifest.edge_network].feature_shape(32)
    honest, images = guarded(bundle, engine), images_of(bundle)
    assert honest.is_known
    for _ in range(3):
        features, _ = honest.predict(images)
        assert features.std() > 0.1 and 0 < honest.readable < MOST_READABLE
        honest.train_step(images, np.array([0, 1, 2]), np.zeros((3, 3), np.float32), 0.0)
    # Every fourth pixel of the image beside what is meant to leave, in the place of some of it.
    hostile = changed_bundle(narrow_bundle, tmp_path / "hostile", FEATURE_FILES[engine], thinned_images)
    with pytest.raises(UnsafeModelError, match="features is not the output of the extractor, up to"):
        guarded(hostile, engine).predict(images)
    wide = changed_bundle(narrow_bundle, tmp_path / "wide", FEATURE_FILES[engine], copied_by_convolution)
    with pytest.raises(UnsafeModelError, match=r"\[\d+, 16, 32, 32\], said to be|graph of this"):
        guarded(wide, engine).predict(images)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (concatenated, "passes the private images through"),
        (copied_by_convolution, "is not the output of the first convolution"),
        (hidden_in_features, "is not the output of the first convolution"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_extractor_that_lets_images_through(
    server_bundle: Path, tmp_path: Path, engine: str, change: Change, said: str
) -> None:
    bundle = changed_bundle(server_bundle, tmp_path / "hostile", FEATURE_FILES[engine], change)
    with pytest.raises(UnsafeModelError, match=said):
        guarded(bundle, engine).predict(images_of(bundle))


@pytest.mark.parametrize("engine", ENGINES)
def test_logits_that_are_pixels(server_bundle: Path, tmp_path: Path, engine: str) -> None:
    """Of photos alone: the noise that a device tries first is brighter than these images."""
    bundle = changed_bundle(server_bundle, tmp_path / "hostile", FEATURE_FILES[engine], pixels_in_logits)
    with pytest.raises(UnsafeModelError, match="logits is not the output of the local head"):
        guarded(bundle, engine).try_now()
    dark = changed_bundle(server_bundle, tmp_path / "dark", FEATURE_FILES[engine], pixels_of_the_dark)
    lets_through = guarded(dark, engine)
    lets_through.try_now()
    images = images_of(bundle) * np.float32(0.2)
    with pytest.raises(UnsafeModelError, match="logits is not the output of the local head"):
        # One in 32 images is drawn.
        for _ in range(2000):
            lets_through.predict(images)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_file_of_the_device_is_read(server_bundle: Path, tmp_path: Path, engine: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))
    for name in load_bundle(server_bundle).manifest.engine_files(engine):
        if name.endswith(".onnx"):
            out = tmp_path / name
            bundle = changed_bundle(server_bundle, out, name, external_data(secret))
            with pytest.raises(
                UnsafeModelError, match=f"{name} is not opened.*external data|of this machine"
            ):
                guarded(bundle, engine)


def test_weights_with_which_an_honest_graph_copies(server_bundle: Path, tmp_path: Path) -> None:
    bundle = copying_weights(server_bundle, tmp_path / "hostile")
    with pytest.raises(UnsafeModelError, match=r"of noise, 100.0% of a pixel can be read off"):
        guarded(bundle, "portable").predict(images_of(bundle))


def test_a_network_of_the_servers_own_may_be_anything_but_a_copy(server_bundle: Path, tmp_path: Path) -> None:
    """What it computes is not known: it is looked at with noise."""
    for change, said in ((copied_by_convolution, "of noise, 100.0%"), (concatenated, "passes the private")):
        out = tmp_path / change.__name__
        changed = changed_bundle(server_bundle, out, "predict.onnx", change)
        manifest = Manifest.from_dict(changed.manifest.to_dict() | {"edge_network": "of_somebody"})
        with pytest.raises(UnsafeModelError, match=said):
            guarded(Bundle(out, manifest), "portable").predict(images_of(changed))
    manifest = Manifest.from_dict(load_bundle(server_bundle).manifest.to_dict() | {"edge_network": "mine"})
    own = guarded(Bundle(server_bundle, manifest), "portable")
    own.predict(images_of(own_bundle := load_bundle(server_bundle)))
    assert not own.is_known and "a network of the server's own" in own.stranger()
    assert guarded(own_bundle, "portable").is_known


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_rearranged_pixels_are_found_wherever_they_are(stride: int) -> None:
    """Patches of pixels as channels, in another order, mixed by a rotation and moved by a pixel."""
    rng = np.random.default_rng(0)
    channels = 3 * stride**2
    noise = rng.random((64, 3, 32, 32), dtype=np.float32)
    side = 32 // stride
    patches = noise.reshape(64, 3, side, stride, side, stride).transpose(0, 1, 3, 5, 2, 4)
    features = patches.reshape(64, channels, side, side)
    rotation = np.linalg.qr(rng.normal(size=(channels, channels)))[0].astype(np.float32)
    for mixed in (features, np.einsum("ij,njhw->nihw", rotation, features), np.roll(features, 1, axis=3)):
        assert readable_share(noise, mixed) > 0.999
    assert readable_share(noise, rng.random(features.shape, dtype=np.float32)) < 0.2


def test_pixels_as_channels_of_one_place_are_found() -> None:
    noise = np.random.default_rng(0).random((32, 3, 8, 8), dtype=np.float32)
    assert readable_share(noise, 2 - 3 * noise.reshape(32, 192, 1, 1)) > 0.999
    other = np.random.default_rng(1).random((32, 192, 1, 1), dtype=np.float32)
    assert readable_share(noise, other) < 0.9


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("Got invalid dimensions\x1b[2J"), UnsafeModelError),
        (TypeError("only length-1 arrays"), UnsafeModelError),
        (RuntimeError("std::bad_alloc"), RuntimeError),
        (MemoryError(), MemoryError),
        (MemoryLimitError("enough"), MemoryLimitError),
    ],
    ids=str,
)
def test_what_fails_inside_of_a_graph_is_named_and_memory_is_not(
    error: Exception, expected: type[Exception]
) -> None:
    with pytest.raises(expected) as caught, graph_trouble_named():
        raise error
    assert type(caught.value) is expected and str(caught.value).isprintable()


def test_a_graph_that_fails_is_named_wherever_it_is_run(server_bundle: Path, tmp_path: Path) -> None:
    """Found by bent answers: memory was tried with an engine that nobody guarded."""

    def reshaped(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "Reshape")
        node.input[0] = "images"

    bundle = changed_bundle(server_bundle, tmp_path / "hostile", "predict.onnx", reshaped)
    with pytest.raises(UnsafeModelError, match="the graph of this bundle fails"):
        try_for_memory(bundle, run_config(), engine="portable", num_threads=1)
