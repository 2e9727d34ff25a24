"""Drop what no later round needs: a run of weeks must not fill the disk."""

from __future__ import annotations

from server_app.rounds.machine import rounds_of
from server_app.rounds.state import RunState
from server_app.run_folder import RunContext, round_blobs, soft_labels_blob
from server_app.store import delete_with_hash


def drop_what_is_spent(run: RunContext, before: RunState) -> None:
    """Drop shards, soft labels and checkpoints once a round, or a step of the server, was trained on.

    Args:
        run: The run.
        before: The state while it was trained on.
    """
    run.epoch_checkpoint_path.unlink(missing_ok=True)
    if before.mode == "async":
        _drop_of_step(run, before)
    elif not run.config.uploads_every_round:
        _drop_replaced(run, before)
    else:
        # Of the round before, too: a device may have sent its last shard while that one was dropped.
        for old in (before.round_num, before.round_num - 1):
            run.blobs.delete_below(round_blobs(old))
    for client_id in rounds_of(before).parts(before):
        # Devices that were not drawn for a while still need the labels of their last round.
        if answered := before.last_answer(client_id):
            delete_with_hash(run.blobs, soft_labels_blob(answered, client_id))
    _drop_rows(run, before)
    # That of the round before is kept, should the last one be damaged.
    if before.round_num >= 3:
        run.checkpoint_path(before.round_num - 2).unlink(missing_ok=True)


def _drop_rows(run: RunContext, before: RunState) -> None:
    """Forget rows of rounds that are long over, whose blobs are gone."""
    rounds, views = rounds_of(before), dict(before.views)
    used = (rounds.parts(before), rounds.uploads(before), rounds.validation_parts(before))
    needed = {
        client_id: {
            before.last_answer(client_id),
            before.last_upload(client_id),
            views.get(client_id, 0),
            *(each[client_id] for each in used if client_id in each),
        }
        for client_id in (*before.clients, *before.revoked)
    }
    run.store.past.drop_spent(dict(before.answered), needed)


def _drop_replaced(run: RunContext, before: RunState) -> None:
    """Keep each device's upload that is trained on, for as long as it is."""
    views = dict(before.views)
    for client_id in (*before.clients, *before.revoked):
        held = before.last_upload(client_id) if client_id in before.clients else 0
        # Of a round that a device was too late for, there may be some shards.
        spent = {before.round_num, before.round_num - 1, views.get(client_id, 0)} - {held, 0}
        for round_num in spent:
            run.blobs.delete_below(f"{round_blobs(round_num)}/{client_id}")


def _drop_of_step(run: RunContext, before: RunState) -> None:
    for client_id, round_num in rounds_of(before).parts(before).items():
        for shard in run.store.shards(round_num, client_id):
            if shard.key.split == "train":
                run.blobs.delete(shard.blob)
        # Validation shards are evaluated on until the device sends its next ones.
        if answered := before.last_answer(client_id):
            run.blobs.delete_below(f"{round_blobs(answered)}/{client_id}")
