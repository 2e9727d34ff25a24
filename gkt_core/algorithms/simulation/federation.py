"""What an algorithm trains on: the devices' private data, and how views of it are drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import batch_order, batches, to_float_nchw
from gkt_core.data.private_data import (
    SPLIT_NAME,
    TEST_NAME,
    PrivateData,
    Samples,
    load_private_data,
    load_test_data,
)
from gkt_core.errors import DatasetError
from gkt_core.nn.building import Pixels
from gkt_core.rounds.client_part import client_seed, draw_view
from gkt_core.rounds.learning_rate import LearningRate


@dataclass(frozen=True, slots=True)
class Federation:
    """Devices with their data, and a test set that nobody trains or chooses on.

    Attributes:
        clients: Private data by client id, sorted.
        test: The global test set.
        class_names: One name a class.
        pixel_mean: Mean of each channel, 0..1.
        pixel_std: Standard deviation of each channel.
        horizontal_flip: Whether a mirrored image is still of its class, which it is not for digits.
        pretraining: Samples that no device holds, for algorithms that begin from a pre-trained network.
    """

    clients: Mapping[str, PrivateData]
    test: Samples
    class_names: tuple[str, ...]
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    pretraining: Samples | None = None
    horizontal_flip: bool = True

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def pixels(self) -> Pixels:
        """What every network normalises with, by the names of its builder's arguments."""
        return {"pixel_mean": self.pixel_mean, "pixel_std": self.pixel_std}

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return int(self.test.images.shape[1])

    @property
    def num_examples(self) -> int:
        """Training samples of all devices."""
        return sum(len(data.train) for data in self.clients.values())

    def validation(self) -> Samples:
        """Join the validation samples of all devices."""
        return join_samples([data.validation for data in self.clients.values()])


def join_samples(parts: list[Samples]) -> Samples:
    """Join several devices' samples."""
    return Samples(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.sample_ids for part in parts]),
    )


def load_federation(folder: Path) -> Federation:
    """Read a split that ``gkt data split`` wrote.

    Raises:
        DatasetError: A file is missing or damaged.
    """
    try:
        split: dict[str, Any] = json.loads((folder / SPLIT_NAME).read_text(encoding="utf-8"))
        clients = {
            entry["client_id"]: load_private_data(folder / entry["file"]) for entry in split["clients"]
        }
        pretraining = split.get("pretraining_file")
        return Federation(
            clients=dict(sorted(clients.items())),
            test=load_test_data(folder / TEST_NAME),
            class_names=tuple(split["class_names"]),
            pixel_mean=tuple(split["pixel_mean"]),
            pixel_std=tuple(split["pixel_std"]),
            pretraining=load_test_data(folder / pretraining) if pretraining else None,
            horizontal_flip=bool(split.get("horizontal_flip", True)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder} holds no split: {error}: make one with gkt data split") from error


def training_batches(
    samples: Samples,
    config: RunConfig,
    *,
    owner: str,
    round_num: int,
    epochs: int | None = None,
    skip: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Make the augmented batches of a round's epochs, a fresh view in every epoch.

    Order and views follow from the owner's name. Epochs are the config's ``local_epochs`` by default. The
    first ``skip`` batches are left out.

    Yields:
        Images ``[n, 3, S, S]`` in 0..1 and labels ``[n]``.
    """
    epochs, seed = config.local_epochs if epochs is None else epochs, client_seed(config.seed, owner)
    for epoch in range(1, epochs + 1):
        order = batch_order(len(samples), seed=seed, round_num=round_num, epoch=epoch)
        view = (round_num - 1) * epochs + epoch
        for rows in batches(order, config.batch_size):
            skip -= 1
            if skip >= 0:
                continue
            images = draw_view(samples, rows, config, owner, view)
            yield torch.from_numpy(images), torch.from_numpy(samples.labels[rows])


def num_epoch_batches(samples: Samples, config: RunConfig) -> int:
    """Count the batches that :func:`training_batches` makes in an epoch."""
    return len(batches(np.arange(len(samples)), config.batch_size))


def training_rates(
    samples: Samples, config: RunConfig, rate: LearningRate, epochs: int | None = None
) -> list[float]:
    """Give the learning rate of each of the batches of :func:`training_batches`."""
    num_steps = num_epoch_batches(samples, config) * (config.local_epochs if epochs is None else epochs)
    return [rate.at(step, num_steps) for step in range(num_steps)]


def evaluation_batches(samples: Samples, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
    """Give the images as they are, in order."""
    for begin in range(0, len(samples), batch_size):
        rows = slice(begin, begin + batch_size)
        yield torch.from_numpy(to_float_nchw(samples.images[rows])), torch.from_numpy(samples.labels[rows])
