"""Train along with rank 0: what every other process of a group does."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from gkt_core.algorithms import DivergedError, ServerPlace, server_update
from gkt_core.nn.ranks import DistributedRanks
from gkt_core.rounds.feature_source import ShardSource
from server_app.run_folder import RunContext
from server_app.storage_errors import STORAGE_ERRORS, Patience
from server_app.trainer.group import receive_order
from server_app.trainer.network import build_network

log = logging.getLogger("gkt.trainer")


def train_along(run: RunContext, torch_device: torch.device) -> None:
    """Train with rank 0, an order at a time, until it says that there are no more."""
    network, optimizer = build_network(run, torch_device)
    ranks: DistributedRanks | None = None
    last: list[str] = []
    while (order := receive_order(network, optimizer)) is not None:
        ranks = ranks or DistributedRanks(network)
        log.info("rank %d: round %d from epoch %d", ranks.rank, order.round_num, order.first_epoch)
        for blob in last:
            # Of what is in a bucket; rank 0 drops the originals.
            run.blobs.drop_copy(blob)
        last = [blob for _, blob in order.shards]
        files = ((key, _local_path(run, blob)) for key, blob in order.shards)
        try:
            server_update(
                network,
                optimizer,
                ShardSource.from_files(files, run.shard_spec),
                run.config,
                round_num=order.round_num,
                num_classes=run.bundle.manifest.num_classes,
                learning_rate=order.learning_rate,
                views=run.feature_views,
                begin=ServerPlace(order.first_epoch),
                ranks=ranks,
            )
        except DivergedError as error:
            # All ranks see it after the same batch; rank 0 decides what is trained on next.
            log.warning("rank %d: %s", ranks.rank, error)


def _local_path(run: RunContext, blob: str) -> Path:
    """A shard, for which the others wait as long as the storage does not answer."""
    patience = Patience()
    while True:
        try:
            return run.blobs.local_path(blob)
        except STORAGE_ERRORS as error:
            patience.wait(error, log)
