"""Honest devices that look odd: what cameras, nights, small folders and careful owners send to the judge."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.config.run_config import RunConfig
from gkt_core.data.datasets import Dataset
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.wire.feature_noise import FeatureNoise, simulated_key
from profiling.server.poisoning.watched import WatchedFedGKT

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
# Of a device's images every eighth is for validation.
_VALIDATION = 8
_FLEET, _AMONG = "a fleet of them", "two among others"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of honest device.

    Attributes:
        name: In words.
        draw: Makes a device's images ``[n, S, S, 3]`` and labels ``[n]``, of a generator, a data set and n.
        settings: What is different in a run of them.
        noise: Standard deviation of the noise that these devices put on their features.
        num_classes: Of a run of them; those of the data set by default.
    """

    name: str
    draw: Callable[[np.random.Generator, Dataset, int], tuple[Images, Labels]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    noise: float = 0.0
    num_classes: int = 0


def usual(rng: np.random.Generator, dataset: Dataset, num: int) -> tuple[Images, Labels]:
    """Draw images of all classes."""
    rows = rng.choice(len(dataset.x_train), num, replace=False)
    return dataset.x_train[rows], dataset.y_train[rows]


def camera(
    rng: np.random.Generator, dataset: Dataset, num: int, *, objects: bool = True, night: bool = False
) -> tuple[Images, Labels]:
    """One scene with a sensor's noise; an object somewhere in a third of the frames, which are of class 1."""
    size = dataset.image_size
    rows, columns = np.mgrid[0:size, 0:size] * (32 / size)
    across, down = rng.uniform(4, 9), rng.uniform(5, 11)
    channels = [80 + 60 * np.sin(columns / across + c) + 50 * np.cos(rows / down + c) for c in range(3)]
    scene = np.full((size, size, 3), 4.0) if night else np.clip(np.stack(channels, axis=-1), 0, 255)
    frames = np.repeat(scene[None], num, axis=0)
    labels = (np.arange(num) % 3 == 0).astype(np.int64) if objects else np.zeros(num, np.int64)
    side = max(1, size // 4)
    for frame in np.flatnonzero(labels):
        row, column = rng.integers(0, size - side, 2)
        frames[frame, row : row + side, column : column + side] = [25, 10, 10] if night else [230, 40, 40]
    return np.clip(frames + rng.normal(0, 3, frames.shape), 0, 255).astype(np.uint8), labels


def _night(rng: np.random.Generator, dataset: Dataset, num: int) -> tuple[Images, Labels]:
    return camera(rng, dataset, num, night=True)


def _empty_camera(rng: np.random.Generator, dataset: Dataset, num: int) -> tuple[Images, Labels]:
    return camera(rng, dataset, num, objects=False)


def _classes(
    rng: np.random.Generator, dataset: Dataset, num: int, weights: NDArray[np.float64]
) -> tuple[Images, Labels]:
    chances = weights[dataset.y_train]
    rows = rng.choice(len(chances), num, p=chances / chances.sum())
    return dataset.x_train[rows], dataset.y_train[rows]


def _one_class(rng: np.random.Generator, dataset: Dataset, num: int) -> tuple[Images, Labels]:
    weights = np.zeros(len(dataset.class_names))
    weights[rng.integers(len(weights))] = 1.0
    return _classes(rng, dataset, num, weights)


def _skewed(rng: np.random.Generator, dataset: Dataset, num: int) -> tuple[Images, Labels]:
    return _classes(rng, dataset, num, rng.dirichlet(np.full(len(dataset.class_names), 0.1)) + 1e-9)


def _one_image(rng: np.random.Generator, dataset: Dataset, num: int) -> tuple[Images, Labels]:
    images, labels = usual(rng, dataset, 1)
    return images.repeat(num, axis=0), labels.repeat(num)


def _covered(rng: np.random.Generator, dataset: Dataset, num: int) -> tuple[Images, Labels]:
    shape = (num, dataset.image_size, dataset.image_size, 3)
    return np.full(shape, rng.integers(1, 60), np.uint8), rng.integers(0, 2, num)


def _few(rng: np.random.Generator, dataset: Dataset, num: int) -> tuple[Images, Labels]:
    return usual(rng, dataset, int(rng.integers(4, 12)))


def _many_classes(rng: np.random.Generator, dataset: Dataset, num: int) -> tuple[Images, Labels]:
    return usual(rng, dataset, num)[0], rng.integers(0, 1000, num)


KINDS = (
    Kind("fixed camera, an object in a third of its frames", camera),
    Kind("fixed camera without an object", _empty_camera),
    Kind("night scene", _night),
    Kind("covered lens", _covered),
    Kind("one class", _one_class),
    Kind("one image many times", _one_image),
    Kind("1,000 classes", _many_classes, num_classes=1000),
    Kind("four to eleven samples", _few),
    Kind("crop padding of half an image", usual, {"crop_padding": 0.5}),
    Kind("no crop, no flip", usual, {"crop_padding": 0.0, "horizontal_flip": False}),
    Kind("Dirichlet 0.1", _skewed),
    Kind("noise on features", usual, noise=1.0),
    Kind("uint4", usual, {"codec": "uint4"}),
)


def measure_kind(
    kind: Kind,
    dataset: Dataset,
    seed: int,
    *,
    among: bool,
    num_clients: int = 8,
    num_samples: int = 160,
    rounds: int = 3,
) -> dict[str, Any]:
    """Let honest devices train by themselves for some rounds, and the watch look at what they send.

    Args:
        kind: Which.
        dataset: What images are drawn from.
        seed: Of data and run.
        among: Whether two of them are among usual devices; otherwise all devices are of the kind.
        num_clients: Devices of the run.
        num_samples: Images of each.
        rounds: Rounds of the run.

    Returns:
        ``kind``, ``company``, ``seed``, ``num_devices`` of the kind, ``num_others``, and ``quarantined``.
    """
    num_odd = 2 if among else num_clients
    with tempfile.TemporaryDirectory() as temporary:
        algorithm = run_of_kind(
            kind, dataset, seed, Path(temporary),
            num_odd=num_odd, num_clients=num_clients, num_samples=num_samples,
        )  # fmt: skip
        for round_num in range(1, rounds + 1):
            if len(algorithm.quarantined) == num_clients:
                break
            algorithm.run_devices(round_num, 1.0, lambda phase, num: None)
    return {
        "kind": kind.name,
        "company": _AMONG if among else _FLEET,
        "seed": seed,
        "num_devices": num_odd,
        "num_others": num_clients - num_odd,
        "quarantined": algorithm.quarantined_rounds(),
    }


def run_of_kind(
    kind: Kind, dataset: Dataset, seed: int, folder: Path, *, num_odd: int, num_clients: int, num_samples: int
) -> WatchedFedGKT:
    """Prepare a run whose first devices are of a kind and whose others are usual ones; nobody attacks."""
    size, num_classes = dataset.image_size, kind.num_classes or len(dataset.class_names)
    settings = {"crop_padding": 1 / 8, "codec": "uint8", "horizontal_flip": True, **kind.settings}
    settings["crop_padding"] = int(settings["crop_padding"] * size)
    config = RunConfig(num_clients=num_clients, compress=False, seed=seed, **settings)
    names = tuple(str(label) for label in range(num_classes))
    clients = {}
    for number in range(num_clients):
        rng = np.random.default_rng([seed, number, 61])
        images, labels = (kind.draw if number < num_odd else usual)(rng, dataset, num_samples)
        clients[f"client-{number:03}"] = private_data(images, labels, names)
    pixels = np.concatenate([data.train.images.reshape(-1, 3) for data in clients.values()]) / 255
    federation = Federation(
        clients=clients,
        test=clients["client-000"].validation,
        class_names=names,
        pixel_mean=tuple(pixels.mean(axis=0).tolist()),
        pixel_std=tuple(np.maximum(pixels.std(axis=0), 1 / 255).tolist()),
    )
    algorithm = WatchedFedGKT(
        federation,
        config,
        attack="none",
        attacker="",
        folder=folder,
        edge_network="resnet8",
        server_network="resnet55",
        device=torch.device("cpu"),
    )
    for client_id in list(clients)[:num_odd]:
        algorithm.blur(client_id, FeatureNoise(noise=kind.noise, key=simulated_key(seed, client_id)))
    return algorithm


def private_data(images: Images, labels: Labels, names: tuple[str, ...]) -> PrivateData:
    """Give a device its images, every eighth of them for validation; at least one is."""
    ids = np.arange(len(labels), dtype=np.int64)
    kept = ids % _VALIDATION == _VALIDATION - 1 if len(ids) >= _VALIDATION else ids == len(ids) - 1
    train, validation = (Samples(images[rows], labels[rows], ids[rows]) for rows in (~kept, kept))
    return PrivateData(train, validation, names)
