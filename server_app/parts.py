"""What devices sent for a round: which shards count, and the mean of their extractors."""

from __future__ import annotations

from collections.abc import Sequence

from gkt_core.rounds.shared_extractor import (
    EXTRACTOR_SPLIT,
    mean_extractor,
    read_extractor,
    write_extractor,
)
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import RunState
from server_app.run_folder import RunContext, mean_extractor_blob
from server_app.store import ShardRecord, delete_with_hash, put_with_hash


def stored_shards(run: RunContext, state: RunState, split: str) -> list[ShardRecord]:
    """List what is trained on or evaluated on in a round, or averaged after it."""
    rounds = rounds_of(state)
    if split == EXTRACTOR_SPLIT:
        wanted = rounds.parts(state)
    else:
        wanted = rounds.uploads(state) if split == "train" else rounds.validation_parts(state)
    # Devices that came too late may have left some shards of a round.
    return [
        shard
        for round_num in sorted(set(wanted.values()))
        for shard in run.store.shards(round_num)
        if shard.key.split == split and wanted.get(shard.key.client_id) == round_num
    ]


def average_extractors(run: RunContext, state: RunState) -> None:
    """Store the mean of a round, weighted by training samples; the same bytes however often it is made.

    Args:
        run: The run.
        state: Its round is being trained; devices that were left out have no part in it.
    """
    stored: Sequence[ShardRecord] = stored_shards(run, state, EXTRACTOR_SPLIT)
    if not run.config.shares_after(state.round_num) or not stored:
        return
    spec, clients = run.extractor_spec, run.store.clients()
    parts = []
    for shard in sorted(stored, key=lambda each: each.key.client_id):
        data = run.blobs.local_path(shard.blob).read_bytes()
        own = read_extractor(data, spec, shard.key.client_id, shard.key.round_num)
        parts.append((clients[shard.key.client_id].num_examples, own))
    mean = write_extractor(spec, mean_extractor(spec, parts), "", state.round_num)
    put_with_hash(run.blobs, mean_extractor_blob(state.round_num), mean)
    # A device takes the mean of the round before its own.
    for spent in range(max(1, state.round_num - 3), state.round_num - 1):
        delete_with_hash(run.blobs, mean_extractor_blob(spent))
