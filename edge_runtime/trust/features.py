"""Whether what leaves is what it is said to be: features of the extractor, logits of the head, no images.

What makes features is a graph that the server gave. Of the built-in networks the device knows what that graph
computes, up to the tap, so it computes the same in numpy, of every image whose features leave, and compares.
Of the logits it computes those of one in 32 images, which it draws, and of the noise. Of a network of
the server's own it knows neither. Of both it looks at noise, with which nothing but a copy can be predicted:
if one pixel of it can be read off the features by a linear map, pixels pass through.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.trust.endless import EndlessWatch
from edge_runtime.trust.known_networks import Arrays, Images, known_features, known_logits
from gkt_core.bundle.manifest import Manifest
from gkt_core.errors import UnsafeModelError
from gkt_core.networks import EDGE_LAYOUTS, NARROW_NETWORKS, layout_of
from gkt_core.rounds.engine import DeviceEngine

# Of noise, copies let all of a pixel's variance be predicted, and honest stems with 16 channels stay below
# this, before and after training. A wide network of somebody's own may let through much.
MOST_READABLE, MOST_READABLE_OF_OTHERS = 0.95, 0.999
# Relative to the largest feature: engines differ by some 1e-6.
_TOLERANCE = 1e-3
_PROBE_IMAGES, _PLACES_A_CHANNEL = 4, 8
_LEAST_TO_COMPARE, _PIXELS_TO_COMPARE = 24, 64
# Numbers that are held at once, or large images take hundreds of megabytes.
_PROBE_VALUES = 1 << 21
# Numbers that a comparison handles at once: they stay in a cache.
_COMPARED_AT_ONCE = 1 << 18
# Images for one of which the logits are computed, too: some percent of the work, however large they are.
_IMAGES_FOR_ONE = 32


class GuardedEngine:
    """A :class:`gkt_core.rounds.engine.DeviceEngine` whose features are looked at before anybody gets them.

    It is tried on noise whenever it is asked for features of weights that it was not yet tried with: a
    training step is the server's graph as well.

    Args:
        engine: What computes.
        manifest: Of its bundle, the server's word.
        watch: What looks whether a step ends; None for nobody.

    Attributes:
        readable: Of the last trial: the largest share of a pixel's variance, 0..1, that a linear map reads
            off the features of noise.
    """

    def __init__(self, engine: DeviceEngine, manifest: Manifest, watch: EndlessWatch | None = None) -> None:
        self._engine, self._manifest = engine, manifest
        self._step = contextlib.nullcontext if watch is None else watch.step
        self._rng = np.random.default_rng()
        self._weights: Arrays | None = None
        self.readable = 0.0

    @property
    def name(self) -> str:
        """Name of the engine."""
        return self._engine.name

    @property
    def known_as(self) -> str:
        """What the features of a network are that the device knows, in words."""
        if self._manifest.edge_network in NARROW_NETWORKS:
            return "the output of the extractor, up to its narrow tap"
        return "the output of the first convolution"

    @property
    def is_known(self) -> bool:
        """Whether the device knows what this network computes."""
        return layout_of(self._manifest.edge_network) is not None

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the rate of all steps from now on."""
        self._engine.set_learning_rate(learning_rate)

    def train_step(
        self, images: Images, labels: NDArray[np.int64], server_logits: NDArray[np.float32], alpha: float
    ) -> tuple[float, NDArray[np.float32]]:
        """Train on one batch."""
        self._weights = None
        with self._step():
            loss, logits = self._engine.train_step(images, labels, server_logits, alpha)
        if logits.shape != (len(images), self._manifest.num_classes):
            raise self._refused(f"it gives logits of shape {list(logits.shape)}")
        return loss, logits

    def predict(self, images: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute features and logits.

        Raises:
            UnsafeModelError: The features are the images, or not what they are said to be.
        """
        weights = self.try_now()
        with self._step():
            features, logits = self._engine.predict(images)
        self._check(images, features, weights)
        if logits.shape != (len(images), self._manifest.num_classes):
            raise self._refused(f"it gives logits of shape {list(logits.shape)}")
        # Of a few that nobody knows beforehand: all would take as long as the graph itself takes.
        if self._rng.random() * _IMAGES_FOR_ONE < len(images):
            drawn = int(self._rng.integers(len(images)))
            self._check_logits(features[drawn : drawn + 1], logits[drawn : drawn + 1], weights)
        return features, logits

    def try_now(self) -> Arrays:
        """Look at the features of noise, unless that was done since the last step; the weights as they are.

        Raises:
            UnsafeModelError: The features are the images, or not what they are said to be.
        """
        if self._weights is None:
            weights = self._engine.parameters()
            self._try(weights)
            self._weights = weights
        return self._weights

    def stranger(self) -> str:
        """Say what is not known of a network that is not built in."""
        return (
            f"{self._manifest.edge_network} is a network of the server's own: what its features are cannot "
            f"be computed here; of noise, {self.readable:.0%} of a pixel can be read off them at most"
        )

    def save(self, path: Path) -> None:
        """Write the state of the engine."""
        self._engine.save(path)

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Copy all parameters and running statistics."""
        return self._engine.parameters()

    def replace(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        """Overwrite some weights: they are tried before features of them are given."""
        self._weights = None
        self._engine.replace(tensors)

    def gradients(self) -> dict[str, NDArray[np.float32]]:
        """Copy the gradients of the last step."""
        return self._engine.gradients()

    def _try(self, weights: Arrays) -> None:
        """Look at the features of noise that nobody knows beforehand."""
        side = self._manifest.image_size
        num = _num_images(self._manifest)
        noise = self._rng.random((num, 3, side, side), dtype=np.float32)
        with self._step():
            features, logits = self._engine.predict(noise)
        self._check(noise, features, weights)
        self._check_logits(features[:1], logits[:1], weights)
        self.readable = readable_share(noise, features)
        if self.readable > (MOST_READABLE if self.is_known else MOST_READABLE_OF_OTHERS):
            raise self._refused(f"of noise, {self.readable:.1%} of a pixel can be read off its features")

    def _check(self, images: Images, features: NDArray[np.float32], weights: Arrays) -> None:
        expected = (len(images), *self._manifest.feature_shape)
        if features.shape != expected:
            raise self._refused(f"its features are {list(features.shape)}, said to be {list(expected)}")
        if not self.is_known:
            return
        step = max(1, _COMPARED_AT_ONCE // (27 * self._manifest.image_size**2))
        for begin in range(0, len(images), step):
            known = known_features(images[begin : begin + step], weights, self._manifest)
            part = features[begin : begin + step]
            if known.shape != part.shape:
                raise self._refused(
                    f"its features are {list(part.shape)}, of {self._manifest.edge_network} they are "
                    f"{list(known.shape)}"
                )
            if not _is_near(known, part):
                raise self._refused(f"what it gives out as features is not {self.known_as}")

    def _check_logits(
        self, features: NDArray[np.float32], logits: NDArray[np.float32], weights: Arrays
    ) -> None:
        """Compare logits with those that the local head gives of features, which were looked at before."""
        # What FedAvg's networks have behind the tap is no local head.
        if self._manifest.edge_network not in EDGE_LAYOUTS:
            return
        known = known_logits(features, weights, self._manifest)
        if known.shape != logits.shape or not _is_near(known, logits):
            raise self._refused("what it gives out as logits is not the output of the local head")

    def _refused(self, what: str) -> UnsafeModelError:
        return UnsafeModelError(
            f"the extractor {self._manifest.edge_network} of this bundle lets private images through, or "
            f"is none: {what}. Nothing of it was sent; whoever runs the server must export again, or "
            "somebody between has changed it"
        )


def _is_near(known: NDArray[np.float32], given: NDArray[np.float32]) -> bool:
    # Not ">": what is not finite is apart.
    return bool(np.abs(known - given).max() <= _TOLERANCE * (1 + float(np.abs(known).max())))


def _num_images(manifest: Manifest) -> int:
    """How many images of noise give enough places for a regression on all channels, within bounds."""
    channels, height, width = manifest.features
    places = max(1, height - 2) * max(1, width - 2)
    most = max(1, _PROBE_VALUES // max(channels * height * width, 3 * manifest.image_size**2))
    return min(max(_PROBE_IMAGES, -(-_PLACES_A_CHANNEL * channels // places)), most)


def readable_share(noise: Images, features: NDArray[np.float32]) -> float:
    """Say how well the best-readable pixel of noise follows from the features of its place, linearly.

    Args:
        noise: ``[n, 3, S, S]``, each value drawn by itself.
        features: ``[n, C, H, W]`` of it.

    Returns:
        The largest coefficient of determination, 0..1, over pixels around a place and their channels; where
        there are too few places for that, the largest of one feature and one pixel, anywhere.
    """
    num, channels, height, width = features.shape
    side = noise.shape[2]
    stride, inner = side // height, height - 2
    if height != width or side % height or num * max(inner, 0) ** 2 < _PLACES_A_CHANNEL * channels:
        return _copied_share(noise, features)
    places = features[:, :, 1:-1, 1:-1].transpose(0, 2, 3, 1).reshape(-1, channels).astype(np.float64)
    base = _orthogonal(places)
    free = len(places) / (len(places) - channels - 1)
    shares = [0.0]
    for down in range(-1, stride + 1):
        for right in range(-1, stride + 1):
            rows = slice(stride + down, stride + down + stride * (inner - 1) + 1, stride)
            columns = slice(stride + right, stride + right + stride * (inner - 1) + 1, stride)
            pixels = _centred(noise[:, :, rows, columns].transpose(0, 2, 3, 1).reshape(-1, 3))
            explained = ((base.T @ pixels) ** 2).sum(axis=0) / (pixels**2).sum(axis=0)
            # As many channels explain some of anything: that part is taken off.
            shares.append(float(1 - (1 - explained.max()) * free))
    return max(shares)


def _copied_share(noise: Images, features: NDArray[np.float32]) -> float:
    """Compare some pixels with every feature, over the images: of few images much is alike by chance."""
    if len(noise) < _LEAST_TO_COMPARE:
        return 0.0
    pixels = _centred(noise.reshape(len(noise), -1))
    pixels = pixels[:, :: max(1, pixels.shape[1] // _PIXELS_TO_COMPARE)]
    values = _centred(features.reshape(len(features), -1))
    values = values / np.maximum(np.sqrt((values**2).sum(axis=0)), 1e-12)
    pixels = pixels / np.sqrt((pixels**2).sum(axis=0))
    return float(((pixels.T @ values) ** 2).max())


def _orthogonal(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give orthonormal columns that span those of the centred matrix."""
    centred = _centred(places)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    kept = values > max(float(values.max()), 1e-30) * 1e-10
    return np.asarray(centred @ (vectors[:, kept] / np.sqrt(values[kept])))


def _centred(values: NDArray[Any]) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    return np.asarray(wide - wide.mean(axis=0))
