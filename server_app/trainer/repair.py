"""Look at what is stored before it is trained on, and find another way where it is damaged."""

from __future__ import annotations

import logging

import torch
from torch import nn

from gkt_core.errors import ArtifactError
from gkt_core.nn.checkpoint import load_checkpoint
from server_app.rounds.history import DAMAGED, MODEL_LOST, RESUMED
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import Noted, PartsLost, RunState
from server_app.run_folder import SERVER_WEIGHTS_BLOB, RunContext
from server_app.store import ShardRecord, sealed_blob, shard_trouble
from server_app.trainer.network import build_network, publish_model

log = logging.getLogger("gkt.trainer")

_LOST = "the server network is lost"


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
    again: dict[str, str] = {}
    for client_id, round_num in sorted({(key.client_id, key.round_num) for key in troubles}):
        keys = [key for key in troubles if (key.client_id, key.round_num) == (client_id, round_num)]
        first = f"{keys[0].split} shard {keys[0].index} of {client_id}, round {round_num}"
        text = f"{first}: {troubles[keys[0]]}; {len(keys)} in all"
        if uploads.get(client_id) == round_num:
            log.warning("damaged, and asked for again: %s", text)
            again[client_id] = text
        else:
            # Validation samples of a round that is over, which the device does not have any more.
            log.warning("damaged, and left out: %s", text)
            state = run.store.lose_shards(keys, Noted(DAMAGED, f"left out: {text}"), owner)
    if again:
        # Of all devices at once: after the first the round would be open, and the others' part of it.
        keys = [key for key in troubles if uploads.get(key.client_id) == key.round_num]
        state = run.store.lose_shards(keys, PartsLost(state.round_num, tuple(again.items())), owner)
    return state


def load_round(
    run: RunContext, state: RunState, round_num: int, network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Restore what stood after a round, or after the round before where that is damaged.

    Where both are, a person decides: a run that is resumed after this begins from the first weights again.

    Args:
        run: The run.
        state: Where it is.
        round_num: From 1.
        network: Restored in place.
        optimizer: The same.

    Raises:
        ArtifactError: Both are damaged, or gone.
    """
    path, before = run.checkpoint_path(round_num), run.checkpoint_path(round_num - 1)
    try:
        load_checkpoint(path, network, optimizer)
        return
    except ArtifactError as error:
        trouble = without_folder(run, error)
    text = f"{trouble}: going on from what stood before round {round_num}"
    try:
        if round_num > 1:
            load_checkpoint(before, network, optimizer)
        else:
            _load_first(run, network, optimizer)
    except ArtifactError as error:
        if not _is_resumed_without(state):
            # Devices read it, too: the particulars are for the log.
            log.error("%s; %s", trouble, error)
            raise ArtifactError(
                f"{_LOST}: the checkpoints of rounds {round_num} and {round_num - 1} are damaged or gone. "
                "Put one of the two back, from a backup, or let it begin from its first weights; then "
                "gkt serve --resume-failed"
            ) from error
        text = f"{_LOST}, and begins from its first weights: {trouble}"
        _load_first(run, network, optimizer)
    log.error("%s", text)
    run.store.apply(Noted(DAMAGED, text))


def without_folder(run: RunContext, error: Exception) -> str:
    """What went wrong, with paths as they are in the run's folder: it is shown to whoever sees the status."""
    return str(error).replace(f"{run.folder}/", "")


def _load_first(run: RunContext, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    first, first_optimizer = build_network(run, next(network.parameters()).device)
    network.load_state_dict(first.state_dict())
    optimizer.load_state_dict(first_optimizer.state_dict())


def _is_resumed_without(state: RunState) -> bool:
    """Whether a person has let this round go on although the network was lost."""
    resumed = [each for each in state.history if each.kind == RESUMED and each.round_num == state.round_num]
    return bool(resumed) and _LOST in resumed[-1].text


def make_model_again(
    run: RunContext, state: RunState, network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Publish the model of a finished run once more, from its last checkpoint, where it is damaged.

    Args:
        run: The run.
        state: It is finished.
        network: What the checkpoint is restored into.
        optimizer: The same.
    """
    if sealed_blob(run.blobs, SERVER_WEIGHTS_BLOB) is not None:
        return
    try:
        load_checkpoint(run.checkpoint_path(state.round_num), network, optimizer)
    except ArtifactError as error:
        # Not the round before: that is another model than the one whose accuracy stands in the run's metrics.
        trouble = without_folder(run, error)
        text = f"{MODEL_LOST}{trouble}: put it back, or train on with gkt serve --rounds N"
    else:
        publish_model(run, network)
        text = "the trained model: made again from the checkpoint"
    log.error("damaged: %s", text)
    run.store.apply(Noted(DAMAGED, text))
