"""Supervised training on somebody's samples, saved on its way and gone on with, as :mod:`server_part` is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from gkt_core.algorithms.base import SupervisedPlace, train_supervised
from gkt_core.algorithms.simulation.federation import num_epoch_batches, training_batches, training_rates
from gkt_core.algorithms.simulation.saving import Place, Saves
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import Samples
from gkt_core.nn.compiling import NOT_COMPILED, Compiler
from gkt_core.rounds.learning_rate import LearningRate

_FROM_THE_BEGINNING = SupervisedPlace()


def supervised_part(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    samples: Samples,
    config: RunConfig,
    *,
    owner: str,
    round_num: int,
    on_samples: Callable[[int], None],
    saves: Saves,
    place_of: Callable[[dict[str, Any]], Place],
    begin: SupervisedPlace = _FROM_THE_BEGINNING,
    epochs: int | None = None,
    rate: LearningRate | None = None,
    precision: str = "fp32",
    label_smoothing: float = 0.0,
    compiler: Compiler = NOT_COMPILED,
) -> float:
    """Train on a round's batches of samples from wherever an earlier process left off; the mean loss.

    Args:
        network: Is trained.
        optimizer: Its optimizer.
        samples: What is trained on.
        config: Hyper-parameters.
        owner: Whose samples they are; order and views follow from the name.
        round_num: From 1.
        on_samples: Hears of the number of images of each batch.
        saves: Is told of each place, and saves some.
        place_of: Makes a place of the round of the values of a :class:`SupervisedPlace`.
        begin: Where to begin, of a place that ``saves`` was told of.
        epochs: The config's ``local_epochs`` by default.
        rate: Of each step; the optimizer's own by default.
        precision: As of :func:`train_supervised`, as are the last two.
        label_smoothing: Share of the cross entropy that is on all classes alike.
        compiler: Of the network's training.

    Raises:
        GKTError: The loss is no longer finite.
    """
    num_batches = num_epoch_batches(samples, config)

    def on_place(place: SupervisedPlace) -> None:
        saves(lambda: place_of(asdict(place)), epoch_done=place.num_batches % num_batches == 0)

    return train_supervised(
        network,
        optimizer,
        training_batches(
            samples, config, owner=owner, round_num=round_num, epochs=epochs, skip=begin.num_batches
        ),
        on_samples,
        precision=precision,
        label_smoothing=label_smoothing,
        rates=None if rate is None else training_rates(samples, config, rate, epochs),
        compiler=compiler,
        begin=begin,
        on_place=on_place,
    )
