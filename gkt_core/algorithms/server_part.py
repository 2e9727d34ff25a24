"""The server's part of a simulated round: :func:`server_update`, saved on its way and gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gkt_core.algorithms.base import OnSamples
from gkt_core.algorithms.server_round import ServerPlace, ServerUpdate, server_update
from gkt_core.algorithms.simulation.saving import Place, Saves
from gkt_core.config.run_config import RunConfig
from gkt_core.nn.compiling import Compiler
from gkt_core.rounds.feature_source import ShardSource
from gkt_core.rounds.feature_views import FeatureViews
from gkt_core.rounds.learning_rate import LearningRate

SERVER = "server"
_NUMBERS = ("epoch", "num_batches", "total_loss", "num_right")


def server_part(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    source: ShardSource,
    config: RunConfig,
    *,
    round_num: int,
    num_classes: int,
    on_samples: OnSamples,
    saves: Saves,
    left: Place,
    values: Mapping[str, Any],
    views: FeatureViews,
    learning_rate: LearningRate,
    compiler: Compiler,
) -> ServerUpdate:
    """Train on the source from wherever an earlier process left off.

    Args:
        network: As of :func:`server_update`, as are all that are not named here.
        optimizer: Its optimizer.
        source: What is trained on.
        config: Hyper-parameters.
        round_num: From 1.
        num_classes: Width of the logits.
        on_samples: Hears of each batch.
        saves: Is told of each place, and saves some.
        left: The place to begin at, one that ``saves`` was told of, or nowhere.
        values: What else such a place has to say of the round.
        views: What is drawn of features.
        learning_rate: Of each step of the round.
        compiler: Of the network's training.
    """
    begin = None
    if SERVER in left.values:
        logits = left.arrays.get("server_logits")
        begin = ServerPlace(
            **left.values[SERVER], server_logits=None if logits is None else logits.astype("f4")
        )

    def on_place(place: ServerPlace) -> None:
        numbers = {name: getattr(place, name) for name in _NUMBERS}
        arrays = {} if place.server_logits is None else {"server_logits": place.server_logits}
        saves(lambda: Place({**values, SERVER: numbers}, arrays), epoch_done=place.num_batches == 0)

    return server_update(
        network,
        optimizer,
        source,
        config,
        round_num=round_num,
        num_classes=num_classes,
        learning_rate=learning_rate,
        compiler=compiler,
        views=views,
        begin=begin,
        on_batch=lambda progress: on_samples("server", progress.batch_samples),
        on_place=on_place,
    )
