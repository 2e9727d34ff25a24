"""Look at what is stored before it is trained on, and find another way where it is damaged."""

from __future__ import annotations

import logging

import torch
from torch import nn

from gkt_core.errors import ArtifactError
from gkt_core.nn.checkpoint import load_checkpoint
from server_app.rounds.history import DAMAGED
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import Noted, PartLost, RunState
from server_app.run_folder import SERVER_WEIGHTS_BLOB, RunContext
from server_app.store import ShardRecord, sealed_blob, shard_trouble
from server_app.trainer.network import build_network

log = logging.getLogger("gkt.trainer")


def ask_for_damaged(run: RunContext, state: RunState, shards: list[ShardRecord], owner: str) -> RunState:
    """Give back the parts of devices whose shards are damaged, so that they send those again.

    Args:
        run: The run.
        state: It is being trained.
        shards: What is to be trained and evaluated on.
        owner: Of the lease.

    Returns:
        The state; no longer ``training`` where a part is missing now.
    """
    troubles = {
        shard.key: trouble for shard in shards if (trouble := shard_trouble(run.blobs, shard, run.shard_spec))
    }
    uploads = rounds_of(state).uploads(state)
    for client_id in sorted({key.client_id for key in troubles}):
        keys = [key for key in troubles if key.client_id == client_id]
        first = f"{keys[0].split} shard {keys[0].index} of {client_id}, round {keys[0].round_num}"
        text = f"{first}: {troubles[keys[0]]}; {len(keys)} in all"
        if uploads.get(client_id) == keys[0].round_num:
            log.warning("damaged, and asked for again: %s", text)
            state = run.store.lose_shards(keys, PartLost(client_id, state.round_num, text), owner)
        else:
            # Validation samples of a round that is over, which the device does not have any more.
            log.warning("damaged, and left out: %s", text)
            state = run.store.lose_shards(keys, Noted(DAMAGED, f"left out: {text}"), owner)
    return state


def load_round(run: RunContext, round_num: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore what stood after a round, or after the round before where that is damaged.

    Args:
        run: The run.
        round_num: From 1; 0 for the first weights.
        network: Restored in place.
        optimizer: The same.

    Raises:
        ArtifactError: Both are damaged, or gone.
    """
    path = run.checkpoint_path(round_num)
    try:
        load_checkpoint(path, network, optimizer)
        return
    except ArtifactError as error:
        before = run.checkpoint_path(round_num - 1)
        if round_num > 1 and not before.is_file():
            raise
        text = f"{error}: going on from what stood before round {round_num}"
    log.error("%s", text)
    if round_num > 1:
        load_checkpoint(before, network, optimizer)
    else:
        first, first_optimizer = build_network(run, next(network.parameters()).device)
        network.load_state_dict(first.state_dict())
        optimizer.load_state_dict(first_optimizer.state_dict())
    run.store.apply(Noted(DAMAGED, text))


def model_is_whole(run: RunContext) -> bool:
    """Whether the published weights are what was published."""
    return sealed_blob(run.blobs, SERVER_WEIGHTS_BLOB) is not None
