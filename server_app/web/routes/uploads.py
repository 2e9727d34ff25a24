"""Take shards, checked before they are kept, and the report that closes a device's part of a round."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
from flask import Blueprint, Response, request

from gkt_core.errors import ChecksumError, MessageError, ProtocolError, RoundError, ShardError
from gkt_core.rounds.shared_extractor import EXTRACTOR_SPLIT
from gkt_core.wire.paths import REPORT, RUN, SHARD, SHARDS
from gkt_core.wire.protocol import (
    LEVELS,
    MAX_MISSING_SHARDS,
    SHA256_HEADER,
    ZSTD,
    MissingShards,
    RoundReport,
    ShardReceipt,
)
from gkt_core.wire.shards import SPLITS, FeatureShard, ShardKey, ShardSpec, map_feature_shard
from server_app.rounds.machine import part_is_closed, rounds_of
from server_app.rounds.state import RunState
from server_app.run_folder import RunContext, shard_blob
from server_app.store import ShardRecord, UploadView, drop_blobs, shard_trouble
from server_app.web.access import still_admitted
from server_app.web.context import context, message_response, run_of, task_response
from server_app.web.receiving import Received, receive, receive_message
from server_app.web.routes.extractor_checks import check_extractor_arrived, check_shared, checked_extractor
from server_app.web.validation import received

# What a report says of a device's training, and the most that one can: seconds of three years.
_MOST_REPORTED = {
    "loss": 1e6,
    "accuracy": 1.0,
    "train_seconds": 1e8,
    "extract_seconds": 1e8,
    "images_per_second": 1e9,
}
_SHARD_TRAFFIC = "upload/shards"

blueprint = Blueprint("uploads", __name__, url_prefix=RUN)


@blueprint.get(SHARDS)
def missing_shards(run_id: str, round_num: int, client_id: str) -> Response:
    """What the device still has to send of its part of the open round."""
    run = run_of(run_id)
    state = run.store.state()
    if rounds_of(state).has_reported(state, client_id, round_num):
        return _answer(run, MissingShards([], []))
    rounds_of(state).check_upload(state, client_id, round_num)
    kept = _kept_shards(run, round_num, client_id)
    stored = {(shard.key.split, shard.key.index) for shard in kept}
    client = run.store.clients()[client_id]

    def missing(split: str) -> list[int]:
        num_shards = context().quota.num_shards(client, split)
        wanted = (index for index in range(num_shards) if (split, index) not in stored)
        return list(islice(wanted, MAX_MISSING_SHARDS))

    return _answer(run, MissingShards(missing("train"), missing("validation")))


def _answer(run: RunContext, missing: MissingShards) -> Response:
    """Say how shards may come, too: as RFC 7694 has it, which devices of earlier versions do not read."""
    response = message_response(missing)
    response.headers["Accept-Encoding"] = ZSTD if run.level_features is None else f"{ZSTD}, {LEVELS}"
    return response


@blueprint.put(SHARD)
def put_shard(run_id: str, round_num: int, client_id: str, split: str, index: int) -> Response:
    """Keep one shard; repeating it is harmless, also after its round was closed."""
    run = run_of(run_id)
    is_extractor = split == EXTRACTOR_SPLIT
    if is_extractor:
        check_shared(run.config, round_num, index)
    elif split not in SPLITS:
        raise ShardError(f"unknown split {split[:20]!r}, expected one of {', '.join(SPLITS)}")
    key = ShardKey(client_id, round_num, split, index)
    spec = run.shard_spec
    admission, quota = context().admission, context().quota
    with admission.upload(client_id), run.blobs.incoming() as path:
        quota.check_room()
        quota.check_share(key)
        arrived = receive(
            path,
            run.extractor_spec.max_bytes if is_extractor else spec.max_bytes,
            look_at_floats=spec.codec == "fp32" and not is_extractor,
            levels=None if is_extractor else run.level_features,
        )
        still_admitted()
        view = run.store.upload_view(key)
        known = view.known if view.known is not None and view.known.sha256 == arrived.sha256 else None
        if known is None:
            _check_awaited(view, key)
        try:
            _check_hash(arrived)
            if known is None and is_extractor:
                num_samples = 0
                checked_extractor(arrived, path, key, run.extractor_spec)
            elif known is None:
                num_samples = len(_checked(arrived, path, key, spec).sample_ids)
                quota.check_size(key, view.client, num_samples)
        except ProtocolError:
            run.store.count_traffic(_SHARD_TRAFFIC, round_num, arrived.num_bytes)
            raise
        if known is not None:
            run.store.count_traffic(_SHARD_TRAFFIC, round_num, arrived.num_bytes)
            return message_response(ShardReceipt(known.num_samples, arrived.num_bytes, already_stored=True))
        blob = shard_blob(key, arrived.content_sha256)
        quota.count(key, path.stat().st_size)
        with admission.storing(client_id):
            _store(run, ShardRecord(key, arrived.sha256, num_samples, arrived.num_bytes, blob), path)
    return message_response(ShardReceipt(num_samples, arrived.num_bytes, already_stored=False))


def _check_awaited(view: UploadView, key: ShardKey) -> None:
    rounds_of(view.state).check_upload(view.state, key.client_id, key.round_num)
    if key.split != EXTRACTOR_SPLIT:
        context().quota.check_index(key, view.client)


def _store(run: RunContext, record: ShardRecord, path: Path) -> None:
    """Take a file over, and drop the one that it replaces: readers that have that one open keep it."""
    run.blobs.put_file(record.blob, path)

    def check(view: UploadView) -> None:
        # Once more: its round may have been closed, and be trained on, since the body began to come.
        _check_awaited(view, record.key)

    try:
        replaced = run.store.keep_shard(record, _SHARD_TRAFFIC, check)
    except ProtocolError:
        known = run.store.upload_view(record.key).known
        if known is None or known.blob != record.blob:
            run.blobs.delete(record.blob)
        raise
    if replaced not in ("", record.blob):
        drop_blobs(run.blobs, [replaced])


def _check_hash(arrived: Received) -> None:
    if SHA256_HEADER not in request.headers:
        raise ShardError(f"the request has no {SHA256_HEADER}, expected the SHA-256 of its body")
    if request.headers[SHA256_HEADER].lower() != arrived.sha256:
        raise ChecksumError(
            f"the body has SHA-256 {arrived.sha256}, not what {SHA256_HEADER} says: send it again"
        )


def _checked(arrived: Received, path: Path, key: ShardKey, spec: ShardSpec) -> FeatureShard:
    """Check every value of the shard while the file is still in memory."""
    if arrived.error is not None:
        raise arrived.error
    return map_feature_shard(path, key, spec, check_values=True, largest=arrived.largest)


def _kept_shards(run: RunContext, round_num: int, client_id: str) -> list[ShardRecord]:
    """Return the shards of a device that even a crash of the machine cannot take any more.

    Shards are not waited for one by one: the disk is waited for once, before a part counts as complete.
    What an earlier crash took, or what cannot be read any more, is forgotten, so that it is asked for again.
    """
    stored = run.store.shards(round_num, client_id)
    lost = set(run.blobs.make_durable(shard.blob for shard in stored))
    lost |= {shard.blob for shard in stored if shard.blob not in lost and not _is_readable(run, shard)}
    for shard in stored:
        if shard.blob in lost:
            run.store.forget_shard(shard)
    return [shard for shard in stored if shard.blob not in lost]


def _is_readable(run: RunContext, shard: ShardRecord) -> bool:
    """Whether a shard was not cut short meanwhile; all its bytes are hashed before it is trained on."""
    if shard.key.split == EXTRACTOR_SPLIT:
        return not shard_trouble(run.blobs, shard, run.shard_spec)
    try:
        map_feature_shard(run.blobs.local_path(shard.blob), shard.key, run.shard_spec)
    except (ProtocolError, FileNotFoundError):
        return False
    return True


@blueprint.put(REPORT)
def put_report(run_id: str, round_num: int, client_id: str) -> Response:
    """Close the device's part of the round, if all that it announced has arrived."""
    run = run_of(run_id)
    body = receive_message()
    report = received(RoundReport, body)
    still_admitted()
    state = run.store.state()
    if not part_is_closed(state, client_id, round_num):
        rounds_of(state).check_upload(state, client_id, round_num)
        upload_round = _upload_round(run, state, client_id, round_num, report)
        remembered = 0 if run.config.uploads_every_round else upload_round
        with context().admission.storing(client_id):
            _check_complete(run, client_id, upload_round, report)
            check_extractor_arrived(run, _kept_shards(run, round_num, client_id), client_id, round_num)
            state = run.store.close_part(client_id, round_num, report, remembered)
        run.store.count_traffic("upload/reports", round_num, len(body))
    return task_response(run, state, client_id)


def _upload_round(
    run: RunContext, state: RunState, client_id: str, round_num: int, report: RoundReport
) -> int:
    """Find the upload that a report is about.

    Raises:
        RoundError: It is none that is held, or the schedule of the run asks for a new one.
    """
    if report.upload_round in (0, round_num):
        return round_num
    held, schedule = state.last_upload(client_id), run.config.upload_schedule
    if not held or report.upload_round != held:
        raise RoundError(
            f"{client_id} reports round {round_num} on its upload of round {report.upload_round}, "
            f"{f'held is that of round {held}' if held else 'none is held'}: upload this round's"
        )
    if schedule.is_due(round_num, held, None if schedule.drift is None else 0.0):
        raise RoundError(
            f"{client_id} reports round {round_num} on its upload of round {held}, but uploads are "
            f"{run.config.uploads}: upload this round's"
        )
    return held


def _check_complete(run: RunContext, client_id: str, round_num: int, report: RoundReport) -> None:
    client = run.store.clients()[client_id]
    if report.num_examples != client.num_examples:
        raise MessageError(
            f"{client_id} reports {report.num_examples} training samples, it announced {client.num_examples}"
        )
    stored = _kept_shards(run, round_num, client_id)
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
        arrived = sum(shard.num_samples for shard in shards)
        if arrived != num_samples:
            raise RoundError(f"{client_id}: {arrived} {split} samples arrived, it announced {num_samples}")
        ids = [
            map_feature_shard(run.blobs.local_path(shard.blob), shard.key, run.shard_spec).sample_ids
            for shard in shards
        ]
        if ids and np.unique(np.concatenate(ids)).size != num_samples:
            raise ShardError(f"{client_id}: a {split} sample is in two shards of round {round_num}")
    for name, most in _MOST_REPORTED.items():
        if not 0 <= (number := getattr(report, name)) <= most:
            raise MessageError(f"{client_id} reports {name} {number:g}, expected 0 to {most:g}")
