"""Shards come in, checked before they are kept; a report closes a device's part of a round."""

from __future__ import annotations

import hashlib
from itertools import islice

import numpy as np
from flask import Blueprint, Response, request

from gkt_core.compression import decompress
from gkt_core.errors import ChecksumError, MessageError, RoundError, ShardError
from gkt_core.protocol import (
    MAX_MISSING_SHARDS,
    SHA256_HEADER,
    ZSTD,
    MissingShards,
    RoundReport,
    ShardReceipt,
    from_json,
)
from gkt_core.shards import SPLITS, ShardKey, map_feature_shard, read_feature_shard
from server_app.context import message_response, run_of, task_response
from server_app.run_folder import RunContext, shard_blob
from server_app.state_machine import check_upload, has_reported, part_is_closed
from server_app.store import ShardRecord

# Sums of numbers below it stay finite, and the status can be sent as JSON.
_BEYOND_ANY_REPORT = 1e15

blueprint = Blueprint(
    "uploads", __name__, url_prefix="/v1/runs/<run_id>/rounds/<int:round_num>/clients/<client_id>"
)


@blueprint.get("/shards")
def missing_shards(run_id: str, round_num: int, client_id: str) -> Response:
    """What the device still has to send of its part of the open round."""
    run = run_of(run_id)
    state = run.store.state()
    if has_reported(state, client_id, round_num):
        return message_response(MissingShards([], []))
    check_upload(state, client_id, round_num)
    stored = {(shard.key.split, shard.key.index) for shard in run.store.shards(round_num, client_id)}

    def missing(split: str) -> list[int]:
        wanted = (
            index for index in range(_num_shards(run, client_id, split)) if (split, index) not in stored
        )
        return list(islice(wanted, MAX_MISSING_SHARDS))

    return message_response(MissingShards(missing("train"), missing("validation")))


@blueprint.put("/shards/<split>/<int:index>")
def put_shard(run_id: str, round_num: int, client_id: str, split: str, index: int) -> Response:
    """Keep one shard; repeating it is harmless, also after its round was closed."""
    run = run_of(run_id)
    if split not in SPLITS:
        raise ShardError(f"unknown split {split[:20]!r}, expected one of {', '.join(SPLITS)}")
    key = ShardKey(client_id, round_num, split, index)
    body = request.get_data()
    digest = hashlib.sha256(body).hexdigest()
    known = _known(run, key, digest)
    if known is None:
        check_upload(run.store.state(), client_id, round_num)
        _check_index(run, key)
    run.store.count_traffic("upload/shards", round_num, len(body))
    if SHA256_HEADER not in request.headers:
        raise ShardError(f"the request has no {SHA256_HEADER}, expected the SHA-256 of its body")
    if request.headers[SHA256_HEADER].lower() != digest:
        raise ChecksumError(f"the body has SHA-256 {digest}, not what {SHA256_HEADER} says: send it again")
    if known is not None:
        return message_response(ShardReceipt(known.num_samples, len(body), already_stored=True))
    data = _decoded(body, run.shard_spec.max_bytes)
    shard = read_feature_shard(data, key, run.shard_spec)
    blob = shard_blob(key, digest)
    run.blobs.put(blob, data)
    num_samples = len(shard.sample_ids)
    run.store.add_shard(ShardRecord(key, digest, num_samples, len(body), blob))
    return message_response(ShardReceipt(num_samples, len(body), already_stored=False))


def _known(run: RunContext, key: ShardKey, digest: str) -> ShardRecord | None:
    # Numbers in a path may be larger than a database takes, names may hold what it cannot.
    if key.round_num > run.config.rounds or key.client_id not in run.store.state().clients:
        return None
    stored = run.store.shards(key.round_num, key.client_id)
    return next((shard for shard in stored if shard.key == key and shard.sha256 == digest), None)


def _decoded(body: bytes, max_bytes: int) -> bytes:
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding == ZSTD:
        return decompress(body, max_bytes)
    if encoding != "identity":
        raise ShardError(f"content encoding {encoding[:20]!r}, expected {ZSTD} or none")
    return body


def _check_index(run: RunContext, key: ShardKey) -> None:
    most = _num_shards(run, key.client_id, key.split)
    if key.index >= most:
        announced = _announced(run, key.client_id, key.split)
        raise ShardError(
            f"shard {key.index} of {key.client_id}, which announced {announced} samples of split "
            f"{key.split}: expected an index below {most}"
        )


def _announced(run: RunContext, client_id: str, split: str) -> int:
    client = run.store.clients()[client_id]
    return client.num_examples if split == "train" else client.num_validation_examples


def _num_shards(run: RunContext, client_id: str, split: str) -> int:
    return -(-_announced(run, client_id, split) // run.config.shard_samples)


@blueprint.put("/report")
def put_report(run_id: str, round_num: int, client_id: str) -> Response:
    """Close the device's part of the round, if all that it announced has arrived."""
    run = run_of(run_id)
    body = request.get_data()
    report = from_json(RoundReport, body)
    state = run.store.state()
    if not part_is_closed(state, client_id, round_num):
        check_upload(state, client_id, round_num)
        _check_complete(run, client_id, round_num, report)
        state = run.store.close_part(client_id, round_num, report)
        run.store.count_traffic("upload/reports", round_num, len(body))
    return task_response(run, state, client_id)


def _check_complete(run: RunContext, client_id: str, round_num: int, report: RoundReport) -> None:
    client = run.store.clients()[client_id]
    if report.num_examples != client.num_examples:
        raise MessageError(
            f"{client_id} reports {report.num_examples} training samples, it announced {client.num_examples}"
        )
    stored = run.store.shards(round_num, client_id)
    announced = {
        "train": (report.num_train_shards, client.num_examples),
        "validation": (report.num_validation_shards, client.num_validation_examples),
    }
    for split, (num_shards, num_samples) in announced.items():
        shards = [shard for shard in stored if shard.key.split == split]
        indexes = {shard.key.index for shard in shards}
        # One by one: a report may name more shards than memory could list.
        missing = list(islice((index for index in range(num_shards) if index not in indexes), 10))
        if missing:
            raise RoundError(f"{client_id}: {split} shards {missing} of {num_shards} have not arrived")
        if len(shards) != num_shards:
            raise RoundError(f"{client_id}: {len(shards)} {split} shards arrived, it reports {num_shards}")
        found = sum(shard.num_samples for shard in shards)
        if found != num_samples:
            raise RoundError(f"{client_id}: {found} {split} samples arrived, it announced {num_samples}")
        ids = [
            map_feature_shard(run.blobs.local_path(shard.blob), shard.key, run.shard_spec).sample_ids
            for shard in shards
        ]
        if ids and np.unique(np.concatenate(ids)).size != num_samples:
            raise ShardError(f"{client_id}: a {split} sample is in two shards of round {round_num}")
    numbers = (report.loss, report.accuracy, report.train_seconds, report.extract_seconds)
    if not all(0 <= number < _BEYOND_ANY_REPORT for number in (*numbers, report.images_per_second)):
        raise MessageError(f"the report of {client_id} holds a number that is negative or far too large")
