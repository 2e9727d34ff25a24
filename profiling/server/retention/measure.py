"""Drive a run's real store through thousands of rounds, with what a server and a trainer do in each."""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from gkt_core.bundle.manifest import Bundle
from gkt_core.config.run_config import RunConfig
from gkt_core.wire.shards import ShardKey
from profiling.counted.message_sizes import TYPICAL_REPORT
from profiling.frame.measurement import Announce
from profiling.server.retention.options import RetentionOptions
from server_app.rounds.state import Claimed, RunState, Trained
from server_app.run_folder import DATABASE_NAME, RunContext, shard_blob, soft_labels_blob
from server_app.status import run_status
from server_app.store import BlobStore, RunStore, edge_metrics
from server_app.store.records import ClientRecord, ShardRecord
from server_app.trainer.tidy import drop_what_is_spent

_SAMPLES, _SHARD_BYTES, _REPEATS = 64, 64, 5
_TRAINED = {
    "train_loss": 1.25, "train_accuracy": 0.5, "validation_loss": 1.5, "validation_accuracy": 0.5,
    "samples_per_second": 100.0,
}  # fmt: skip


def measure_retention(options: RetentionOptions, announce: Announce) -> dict[str, Any]:
    """Take sizes and times at evenly spaced rounds."""
    looks = []
    every = max(1, options.rounds // options.looks)
    with tempfile.TemporaryDirectory(prefix="gkt-retention-") as name:
        folder = Path(name)
        for round_num, run in _rounds(folder, options):
            if round_num % every == 0 or round_num == options.rounds:
                looks.append(_look(run, round_num))
                announce(
                    f"round {round_num}: {looks[-1]['num_bytes']:,} bytes, status in "
                    f"{looks[-1]['status_ms']:.1f} ms"
                )
    return {"looks": looks}


def _rounds(folder: Path, options: RetentionOptions) -> Iterator[tuple[int, RunContext]]:
    client_ids = [f"client-{number:03d}" for number in range(options.num_devices)]
    config = RunConfig(num_clients=options.num_devices, rounds=options.rounds)
    state = RunState(num_clients=options.num_devices, rounds=options.rounds)
    store = RunStore.create(folder / DATABASE_NAME, "run-retention", config.to_dict(), state)
    # What is kept and dropped has nothing to do with the bundle.
    run = RunContext(folder, store, BlobStore(folder / "blobs"), cast(Bundle, None), config)
    (folder / "checkpoints").mkdir()
    try:
        for client_id in client_ids:
            store.join(ClientRecord(client_id, _SAMPLES, _SAMPLES, "portable"))
        for round_num in range(1, options.rounds + 1):
            for client_id in client_ids:
                _device(run, round_num, client_id)
            _trainer(run, round_num, client_ids)
            yield round_num, run
    finally:
        store.close()


def _device(run: RunContext, round_num: int, client_id: str) -> None:
    for split in ("train", "validation"):
        key = ShardKey(client_id, round_num, split, 0)
        body = f"{client_id} {round_num} {split}".encode().ljust(_SHARD_BYTES)
        sha256 = hashlib.sha256(body).hexdigest()
        blob = shard_blob(key, sha256)
        _put(run, blob, body)
        run.store.add_shard(ShardRecord(key, sha256, _SAMPLES, len(body), blob), "upload/shards")
    run.store.close_part(client_id, round_num, TYPICAL_REPORT)


def _trainer(run: RunContext, round_num: int, client_ids: list[str]) -> None:
    state = run.store.apply(Claimed(round_num))
    for client_id in client_ids:
        _put(run, soft_labels_blob(round_num, client_id), b"labels".ljust(_SHARD_BYTES))
        run.store.count_traffic("download/soft_labels", round_num, _SHARD_BYTES)
    run.checkpoint_path(round_num).write_bytes(b"weights")
    reported = run.store.past.reports(dict.fromkeys(client_ids, round_num))
    run.store.add_round_metrics(round_num, {**_TRAINED, **edge_metrics(reported.values())})
    run.store.apply(Trained(round_num))
    drop_what_is_spent(run, state)


def _put(run: RunContext, name: str, data: bytes) -> None:
    with run.blobs.incoming() as path:
        path.write_bytes(data)
        run.blobs.put_file(name, path)


def _look(run: RunContext, round_num: int) -> dict[str, Any]:
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        run_status(run.store)
        times.append(1000 * (time.perf_counter() - began))
    return {
        "round_num": round_num,
        "num_bytes": sum(path.stat().st_size for path in files),
        "database_bytes": sum(path.stat().st_size for path in files if path.name.startswith(DATABASE_NAME)),
        "num_files": len(files),
        "num_rows": run.store.past.num_rows(),
        "status_ms": statistics.median(times),
    }
