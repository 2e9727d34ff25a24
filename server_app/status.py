"""Put the status message together from the store."""

from __future__ import annotations

import dataclasses
import time

from gkt_core.wire.protocol import (
    SHOWN_ROUNDS,
    ClientStatus,
    HistoryNote,
    RoundMetrics,
    RoundPage,
    RunStatus,
)
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import Phase
from server_app.store import RoundRecord, RunStore, edge_summary


def run_status(store: RunStore) -> RunStatus:
    """A run at a glance: as much work for a run of thousands of rounds as for one of a few."""
    state = store.state()
    rounds = rounds_of(state)
    progress, trainer_seen_at = store.progress()
    records = store.past.last_rounds(SHOWN_ROUNDS)
    known = store.clients()
    last = {each: 0 for each in known} | dict(state.answered) | rounds.parts(state)
    reports = store.past.reports({each: number for each, number in last.items() if number and each in known})
    clients = [
        ClientStatus(
            client.client_id,
            client.num_examples,
            client.num_validation_examples,
            client.engine,
            last[client.client_id],
            report.feature_clip if (report := reports.get(client.client_id)) else 0.0,
            report.feature_noise if report else 0.0,
            report.label_epsilon if report else 0.0,
        )
        for client in known.values()
    ]
    return RunStatus(
        run_id=store.run_id,
        phase=str(state.phase),
        round_num=rounds.shown_round(state),
        rounds=state.rounds,
        num_clients=state.num_clients,
        clients=clients,
        reported=list(state.reported),
        traffic=store.past.traffic_totals(),
        trainer_idle_seconds=max(0.0, time.time() - trainer_seen_at),
        trainer=progress if state.phase is Phase.TRAINING else None,
        finished_rounds=_round_metrics(store, records),
        error=state.error,
        selected=list(state.selected),
        revoked=list(state.revoked),
        overdue=state.overdue,
        quarantined=dict(state.quarantined),
        mode=state.mode,
        # They are numbered from 1, without gaps.
        server_steps=records[-1].round_num if records else 0,
        staleness=rounds.staleness(state),
        history=[HistoryNote(each.at, each.round_num, each.kind, each.text) for each in state.history],
    )


def round_page(store: RunStore, after: int, limit: int) -> RoundPage:
    """A page of the rounds that are finished.

    Args:
        store: Of the run.
        after: The round before them; 0 to begin with the first.
        limit: How many at most.
    """
    records = store.past.rounds(after, limit + 1)
    shown = records[:limit]
    return RoundPage(_round_metrics(store, shown), shown[-1].round_num if len(records) > limit else 0)


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


def _round_metrics(store: RunStore, records: list[RoundRecord]) -> list[RoundMetrics]:
    traffic = store.past.traffic_of([record.round_num for record in records])
    return [_metrics_of(record, edge_summary(store, record), traffic) for record in records]


def _metrics_of(
    record: RoundRecord, edge: dict[str, float], traffic: dict[tuple[str, int], int]
) -> RoundMetrics:
    def sent(direction: str) -> int:
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
        edge_loss=edge["loss"],
        edge_accuracy=edge["accuracy"],
        num_examples=int(edge["num_examples"]),
        server_samples_per_second=record.metrics["samples_per_second"],
        edge_images_per_second=edge["images_per_second"],
        # Without rounds, uploads are those of the devices' own rounds, whatever the step's number is.
        upload_bytes=int(edge.get("upload_bytes", sent("upload/"))),
        download_bytes=sent("download/"),
    )
