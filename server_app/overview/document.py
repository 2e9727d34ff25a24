"""Put together what whoever runs a server sees of a run: from store, folder and what the server saw."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from gkt_core.wire.credentials import ClientRow
from gkt_core.wire.join_link import JOIN_NAME
from gkt_core.wire.protocol import RoundReport, RunStatus
from server_app.heartbeat import ALIVE_NAME, read_beat
from server_app.members.membership import client_list
from server_app.overview.estimate import seconds_left
from server_app.overview.judging import judge
from server_app.overview.messages import DeviceLine, DiskLine, Overview, TrainerLine
from server_app.overview.seen import Seen, read_seen
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import Phase, RunState
from server_app.run_folder import SERVER_INFO_NAME, RunContext
from server_app.status import run_status


@dataclass(frozen=True, slots=True)
class Witness:
    """What is to be known beside the store.

    Attributes:
        seen: Each device's requests.
        url: Of the server; empty where none is up.
        started_at: When that began, in seconds since the epoch; 0 for not known.
        trainer_trouble: What is wrong with the trainer, as whoever watches it says.
        storage: What is wrong with database, blobs or the trained model.
        reserve_bytes: Room on the disk that uploads leave.
    """

    seen: Mapping[str, Seen] = field(default_factory=dict)
    url: str = ""
    started_at: float = 0.0
    trainer_trouble: str = ""
    storage: str = ""
    reserve_bytes: int = 0


def overview(run: RunContext, witness: Witness) -> Overview:
    """See a run, and judge it.

    Raises:
        StorageUnavailableError: The database does not answer.
    """
    document = _document(run, witness)
    return dataclasses.replace(document, findings=judge(document))


def witness_of(folder: Path) -> Witness:
    """What the folder of a run tells of its server, to who is not that server."""
    path = folder / SERVER_INFO_NAME
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        is_up = psutil.pid_exists(int(info["pid"]))
        started_at = path.stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError):
        # Nothing that was served, or is served no more.
        return Witness(read_seen(folder))
    return Witness(
        read_seen(folder),
        str(info.get("url", "")) if is_up else "",
        started_at,
        reserve_bytes=int(info.get("reserve_bytes", 0)),
    )


def _document(run: RunContext, witness: Witness) -> Overview:
    now, state = time.time(), run.store.state()
    rounds, status = rounds_of(state), run_status(run.store)
    awaited = sorted(each for each in state.clients if rounds.is_working(state, each))
    waits_for = awaited if state.phase is Phase.COLLECTING and not state.halt else []
    devices = _devices(run, status, state, witness, now)
    is_served = bool(witness.url)
    return Overview(
        at=now,
        run_id=status.run_id,
        phase=status.phase,
        round_num=status.round_num,
        rounds=status.rounds,
        mode=status.mode,
        num_clients=status.num_clients,
        num_joined=len(state.clients),
        min_clients=state.min_clients,
        trainer=_trainer(run.folder, status, witness, now),
        disk=_disk(run.folder, witness.reserve_bytes),
        halt=state.halt,
        halt_reason=state.halt_reason,
        error=state.error,
        deadline_seconds=state.deadline_seconds,
        overdue=state.overdue,
        waits_for=waits_for,
        waits_seconds=_waits_seconds(run, state, witness, now),
        seconds_left=seconds_left(status, state, now - _opened_at(run, state)) if is_served else -1.0,
        is_served=is_served,
        url=witness.url,
        link=str(run.folder / JOIN_NAME) if (run.folder / JOIN_NAME).is_file() else "",
        data_dir=str(run.folder),
        storage=witness.storage,
        devices=devices,
        finished_rounds=status.finished_rounds,
        traffic=status.traffic,
        history=status.history,
    )


def _devices(
    run: RunContext, status: RunStatus, state: RunState, witness: Witness, now: float
) -> list[DeviceLine]:
    shown = {each.client_id: each for each in status.clients}
    rows = client_list(run.store).clients
    last = {each: shown[each].last_reported_round for each in shown}
    reports = run.store.past.reports({each: number for each, number in last.items() if number})
    rounds, twins = rounds_of(state), run.store.credentials.twins()

    def line(row: ClientRow) -> DeviceLine:
        seen, report = witness.seen.get(row.client_id), reports.get(row.client_id)
        known = shown.get(row.client_id)
        return DeviceLine(
            row.client_id,
            row.state,
            row.reason,
            row.trusted,
            rounds.is_working(state, row.client_id) and not state.halt,
            row.num_examples,
            known.num_validation_examples if known else 0,
            row.engine,
            last.get(row.client_id, 0),
            row.last_answer,
            *_reported(report),
            max(0.0, now - seen.at) if seen else -1.0,
            seen.upload_bytes if seen else 0,
            seen.download_bytes if seen else 0,
            seen.refused if seen else "",
            max(0.0, now - seen.copied_at) if seen and seen.copied_at else -1.0,
            twins.get(row.client_id, ""),
        )

    return [line(row) for row in rows]


def _reported(report: RoundReport | None) -> tuple[float, float]:
    return (-1.0, 0.0) if report is None else (report.accuracy, report.images_per_second)


def _trainer(folder: Path, status: RunStatus, witness: Witness, now: float) -> TrainerLine:
    beat, silent = read_beat(folder / ALIVE_NAME), -1.0
    if beat is None:
        # It trains on another machine, perhaps; the database hears of it, too.
        heard = status.trainer_idle_seconds
        return TrainerLine(
            silent_seconds=heard if heard < now - 1 else -1.0,
            trouble=witness.trainer_trouble,
            progress=status.trainer,
        )
    try:
        silent = max(0.0, now - (folder / ALIVE_NAME).stat().st_mtime)
    except OSError:
        silent = -1.0
    return TrainerLine(beat.what, silent, beat.allowed_seconds, witness.trainer_trouble, status.trainer)


def _disk(folder: Path, reserve_bytes: int) -> DiskLine:
    usage = shutil.disk_usage(folder)
    return DiskLine(str(folder), usage.free, usage.total, reserve_bytes)


def _opened_at(run: RunContext, state: RunState) -> float:
    """When the round that is open began; now, where none has."""
    return run.store.past.opened_at(state.round_num) or time.time()


def _waits_seconds(run: RunContext, state: RunState, witness: Witness, now: float) -> float:
    """How long the run has waited for devices, beginning with the start of its server at the earliest.

    Devices that have joined go on asking: what counts is when the last one came.
    """
    if state.halt or state.phase not in (Phase.JOINING, Phase.COLLECTING):
        return 0.0
    since = [witness.started_at, run.store.past.opened_at(state.round_num)]
    since += [] if state.round_num else [each.since for each in witness.seen.values()]
    return max(0.0, now - max(since)) if any(since) else 0.0
