"""What devices sent for a round: which shards count, and the mean of their extractors."""

from __future__ import annotations

from collections.abc import Sequence

from gkt_core.rounds.shared_extractor import (
    EXTRACTOR_SPLIT,
    Extractor,
    far_extractors,
    mean_extractor,
    read_extractor,
    write_extractor,
)
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import RunState
from server_app.run_folder import RunContext, mean_extractor_blob
from server_app.store import ShardRecord, delete_with_hash, has_its_hash, put_with_hash


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
    own = _extractors(run, stored)
    parts = [(clients[client_id].num_examples, own[client_id]) for client_id in sorted(own)]
    mean = mean_extractor(spec, parts, _begun(run, state.round_num))
    data = write_extractor(spec, mean, "", state.round_num)
    put_with_hash(run.blobs, mean_extractor_blob(state.round_num), data)
    # A device takes the mean of the round before its own.
    for spent in range(max(1, state.round_num - 3), state.round_num - 1):
        delete_with_hash(run.blobs, mean_extractor_blob(spent))


def suspect_extractors(run: RunContext, state: RunState) -> dict[str, str]:
    """Name the devices whose extractors of a round are to have no part in its mean, with reasons."""
    if not run.config.shares_after(state.round_num):
        return {}
    own = _extractors(run, stored_shards(run, state, EXTRACTOR_SPLIT))
    suspects = far_extractors(run.extractor_spec, own, _begun(run, state.round_num))
    return {client_id: why for client_id, why in suspects.items() if client_id not in state.trusted}


def _extractors(run: RunContext, stored: Sequence[ShardRecord]) -> dict[str, Extractor]:
    spec = run.extractor_spec
    return {
        shard.key.client_id: read_extractor(
            run.blobs.local_path(shard.blob).read_bytes(), spec, shard.key.client_id, shard.key.round_num
        )
        for shard in stored
    }


def _begun(run: RunContext, round_num: int) -> Extractor | None:
    """What all devices began a round from, if that was a mean."""
    if round_num < 2 or not run.config.shares_after(round_num - 1):
        return None
    blob = mean_extractor_blob(round_num - 1)
    if not has_its_hash(run.blobs, blob):
        return None
    data = run.blobs.local_path(blob).read_bytes()
    return read_extractor(data, run.extractor_spec, "", round_num - 1)
