"""Put the status message together from the store."""

from __future__ import annotations

import dataclasses
import time

from gkt_core.wire.protocol import ClientStatus, HistoryNote, RoundMetrics, RoundReport, RunStatus
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import Phase
from server_app.store import RoundRecord, RunStore, step_parts


def run_status(store: RunStore) -> RunStatus:
    """A run at a glance."""
    state = store.state()
    rounds = rounds_of(state)
    parts = rounds.parts(state)
    traffic = store.traffic()
    progress, trainer_seen_at = store.progress()
    records = store.rounds()
    totals: dict[str, int] = {}
    for (kind, _), num_bytes in sorted(traffic.items()):
        totals[kind] = totals.get(kind, 0) + num_bytes
    reports: dict[int, dict[str, RoundReport]] = {0: {}}
    clients = []
    for client in store.clients().values():
        last = max(state.last_answer(client.client_id), parts.get(client.client_id, 0))
        if last not in reports:
            reports[last] = store.reports(last)
        report = reports[last].get(client.client_id)
        clients.append(
            ClientStatus(
                client.client_id,
                client.num_examples,
                client.num_validation_examples,
                client.engine,
                last,
                report.feature_clip if report else 0.0,
                report.feature_noise if report else 0.0,
            )
        )
    return RunStatus(
        run_id=store.run_id,
        phase=str(state.phase),
        round_num=rounds.shown_round(state),
        rounds=state.rounds,
        num_clients=state.num_clients,
        clients=clients,
        reported=list(state.reported),
        traffic=totals,
        trainer_idle_seconds=max(0.0, time.time() - trainer_seen_at),
        trainer=progress if state.phase is Phase.TRAINING else None,
        finished_rounds=[
            _round_metrics(store, record, traffic)
            for record in records
            if record.trained_at and record.metrics
        ],
        error=state.error,
        selected=list(state.selected),
        revoked=list(state.revoked),
        overdue=state.overdue,
        quarantined=dict(state.quarantined),
        mode=state.mode,
        server_steps=sum(1 for record in records if record.trained_at),
        staleness=rounds.staleness(state),
        history=[HistoryNote(each.at, each.round_num, each.kind, each.text) for each in state.history],
    )


def own_lines(status: RunStatus, client_id: str) -> RunStatus:
    """What a device may see of a status: the run as a whole, and of the devices itself.

    What happened to the run stays with its operator, as it names devices.
    """

    def own(names: list[str]) -> list[str]:
        return [name for name in names if name == client_id]

    return dataclasses.replace(
        status,
        clients=[client for client in status.clients if client.client_id == client_id],
        reported=own(status.reported),
        selected=own(status.selected),
        revoked=own(status.revoked),
        quarantined={name: why for name, why in status.quarantined.items() if name == client_id},
        staleness={name: ahead for name, ahead in status.staleness.items() if name == client_id},
        history=[],
        error="the run failed: ask whoever runs the server" if status.error else "",
    )


def _round_metrics(store: RunStore, record: RoundRecord, traffic: dict[tuple[str, int], int]) -> RoundMetrics:
    step, is_async = step_parts(record.metrics), "full_rounds" in record.metrics
    # Devices that were quarantined in a round have reported too, and have no part in it.
    reports = [store.reports(number)[client_id] for client_id, number in step.items()] or list(
        store.reports(record.round_num).values()
    )
    num_examples = sum(report.num_examples for report in reports)
    weights = [report.num_examples / max(1, num_examples) for report in reports]

    def sent(direction: str) -> int:
        if is_async and direction == "upload/":
            shards = [each for name, number in step.items() for each in store.shards(number, name)]
            return sum(shard.upload_bytes for shard in shards)
        return sum(
            num_bytes
            for (kind, round_num), num_bytes in traffic.items()
            if round_num == record.round_num and kind.startswith(direction)
        )

    return RoundMetrics(
        round_num=record.round_num,
        seconds=record.trained_at - record.opened_at,
        edge_seconds=record.collected_at - record.opened_at,
        server_seconds=record.trained_at - record.collected_at,
        train_loss=record.metrics["train_loss"],
        train_accuracy=record.metrics["train_accuracy"],
        validation_loss=record.metrics["validation_loss"],
        validation_accuracy=record.metrics["validation_accuracy"],
        edge_loss=sum(w * report.loss for w, report in zip(weights, reports, strict=True)),
        edge_accuracy=sum(w * report.accuracy for w, report in zip(weights, reports, strict=True)),
        num_examples=num_examples,
        server_samples_per_second=record.metrics["samples_per_second"],
        edge_images_per_second=sum(report.images_per_second for report in reports),
        upload_bytes=sent("upload/"),
        download_bytes=sent("download/"),
    )
