"""Bytes of a real run as the server counted them, beside the formula, with the difference explained."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkt_core.bundle.manifest import COMBINED_TEMPLATE
from gkt_core.errors import InputError
from gkt_core.wire.protocol import to_json
from gkt_core.wire.shards import SPLITS, ShardKey
from profiling.counted.message_sizes import (
    feature_shard_bytes,
    payload_bytes,
    report_bytes,
    soft_labels_bytes,
)
from profiling.traffic.wire_meter import WIRE_NAME
from server_app import RunContext, open_run
from server_app.rounds.state import Phase
from server_app.store import ClientRecord

SERVER_FOLDER = "server"


@dataclass(frozen=True, slots=True)
class _Part:
    """One device's part of one round: who sent what."""

    round_num: int
    client: ClientRecord


def measure_demo(demo_dir: Path) -> dict[str, Any]:
    """Compare a finished run with what the formulas say about it.

    Args:
        demo_dir: Output folder of ``gkt demo``, or the ``--data-dir`` of ``gkt serve``.

    Returns:
        ``kinds``: predicted and counted bytes by kind; ``rounds``: shards by round; ``shard_parts``: what
        the counted upload consists of, to the byte; ``compression_ratio``; ``wire`` or null.

    Raises:
        InputError: No run in this folder, or it is not finished.
    """
    folder = demo_dir / SERVER_FOLDER if (demo_dir / SERVER_FOLDER).is_dir() else demo_dir
    run = open_run(folder)
    try:
        state = run.store.state()
        if state.phase is not Phase.FINISHED:
            raise InputError(
                f"the run in {folder} is {state.phase} in round {state.round_num}, expected a finished one: "
                "let it end, or choose another --demo-dir"
            )
        return _measure(run, demo_dir)
    finally:
        run.store.close()


def _measure(run: RunContext, demo_dir: Path) -> dict[str, Any]:
    clients = run.store.clients()
    parts = [
        _Part(round_num, clients[client_id])
        for round_num in range(1, run.store.state().round_num + 1)
        for client_id in run.store.reports(round_num)
    ]
    counted: Counter[str] = Counter()
    for (kind, _), num_bytes in run.store.traffic().items():
        counted[kind] += num_bytes
    rounds = _rounds(run, parts)
    first = rounds[0]
    ratio = first["sent_bytes"] / first["encoded_bytes"] if run.config.compress else 1.0
    predicted = {
        "upload/shards": round(ratio * sum(each["encoded_bytes"] for each in rounds)),
        "upload/reports": len(parts) * report_bytes(),
        "download/bundle": sum(
            run.bundle.manifest.file(name).num_bytes
            for client in clients.values()
            for name in run.bundle.manifest.engine_files(client.engine)
        ),
        "download/soft_labels": _soft_labels(run, parts),
        "download/model": len(clients) * run.bundle.manifest.file(COMBINED_TEMPLATE).num_bytes,
    }
    kinds = [
        _beside(kind, predicted.get(kind, 0), counted[kind])
        for kind in sorted({*predicted, *counted}, reverse=True)
    ]
    kinds.append(_beside("all", sum(predicted.values()), counted.total()))
    return {
        "demo_dir": demo_dir.name,
        "num_clients": len(clients),
        "rounds_run": len(rounds),
        "num_examples": sum(client.num_examples for client in clients.values()),
        "num_validation_examples": sum(client.num_validation_examples for client in clients.values()),
        "image_size": run.bundle.manifest.image_size,
        "edge_network": run.bundle.manifest.edge_network,
        "features": run.bundle.manifest.features,
        "num_classes": run.bundle.manifest.num_classes,
        "codec": run.config.codec,
        "compress": run.config.compress,
        "compression_ratio": ratio,
        "kinds": kinds,
        "rounds": rounds,
        "shard_parts": _shard_parts(run, parts, rounds, counted["upload/shards"]),
        "wire": _wire(run, demo_dir, parts),
    }


def _beside(kind: str, predicted: int, counted: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "predicted_bytes": predicted,
        "counted_bytes": counted,
        "relative_difference": (predicted - counted) / counted if counted else 0.0,
    }


def _shards_of(run: RunContext, part: _Part) -> Iterable[tuple[ShardKey, int]]:
    """Every shard that a device must send in a round, with its number of samples."""
    client, size = part.client, run.config.shard_samples
    for split, total in zip(SPLITS, (client.num_examples, client.num_validation_examples), strict=True):
        for index, begin in enumerate(range(0, total, size)):
            key = ShardKey(client.client_id, part.round_num, split, index)
            yield key, min(size, total - begin)


def _rounds(run: RunContext, parts: list[_Part]) -> list[dict[str, int]]:
    rounds = []
    for round_num in sorted({part.round_num for part in parts}):
        encoded = sum(
            feature_shard_bytes(key, num, run.shard_spec)
            for part in parts
            if part.round_num == round_num
            for key, num in _shards_of(run, part)
        )
        sent = sum(shard.upload_bytes for shard in run.store.shards(round_num))
        rounds.append({"round_num": round_num, "encoded_bytes": encoded, "sent_bytes": sent})
    return rounds


def _soft_labels(run: RunContext, parts: list[_Part]) -> int:
    """Answers that devices fetched: to every part but a device's last, with which nobody trains."""
    if not run.config.edge_distils:
        return 0
    last = {part.client.client_id: part.round_num for part in parts}
    return sum(
        soft_labels_bytes(
            part.client.client_id,
            part.round_num,
            part.client.num_examples,
            run.bundle.manifest.num_classes,
        )
        for part in parts
        if part.round_num != last[part.client.client_id]
    )


def _shard_parts(
    run: RunContext, parts: list[_Part], rounds: list[dict[str, int]], counted: int
) -> list[dict[str, Any]]:
    """Take ``upload/shards`` apart; the entries add up to it exactly."""
    totals: Counter[str] = Counter()
    for part in parts:
        for _, num in _shards_of(run, part):
            totals.update(payload_bytes(num, run.shard_spec))
    encoded, kept = (sum(each[name] for each in rounds) for name in ("encoded_bytes", "sent_bytes"))
    totals["safetensors headers"] = encoded - totals.total()
    totals["Zstandard"] = kept - encoded
    totals["sent more than once, or refused"] = counted - kept
    return [{"what": name, "num_bytes": num_bytes} for name, num_bytes in totals.items()]


def _wire(run: RunContext, demo_dir: Path, parts: list[_Part]) -> dict[str, Any] | None:
    """Read what a relay counted, if the demo ran with ``--meter-wire``."""
    path = demo_dir / WIRE_NAME
    if not path.is_file():
        return None
    try:
        wire: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        heads_and_bodies = {
            direction: sum(
                kind[f"{side}_head_bytes"] + kind[f"{side}_body_bytes"] for kind in wire["kinds"].values()
            )
            for direction, side in (("upload", "request"), ("download", "response"))
        }
        unexplained = {
            direction: wire[f"{direction}_bytes"] - total for direction, total in heads_and_bodies.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not what gkt demo --meter-wire writes: run the demo again") from error
    reports = sum(
        len(to_json(report))
        for round_num in {part.round_num for part in parts}
        for report in run.store.reports(round_num).values()
    )
    return {**wire, "unexplained_bytes": unexplained, "stored_report_bytes": reports}
