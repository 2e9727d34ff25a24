"""Say what happened to a run between two looks at its state, in lines: pure functions of both.

Whoever caused it, be it a device, the trainer, the clock or an operator in another process, a change of the
state shows it; so there is one place that tells of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gkt_core.wire.protocol import RoundMetrics
from server_app.overview.amounts import as_bytes, as_duration, listed
from server_app.rounds.history import CHANGED, DAMAGED, OPERATOR, RESUMED
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import Phase, RunState
from server_app.store import ClientRecord

# Of the history's kinds, those that no other line tells of; what the trainer suffers, its watcher says.
_TOLD = (CHANGED, DAMAGED, OPERATOR, RESUMED)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened.

    Attributes:
        name: A stable name for programs.
        text: For a person.
        level: Of logging.
        fields: What belongs to it.
    """

    name: str
    text: str
    level: int = logging.INFO
    fields: dict[str, Any] = field(default_factory=dict)


def changes(before: RunState, after: RunState, clients: Mapping[str, ClientRecord]) -> list[Line]:
    """What happened between two states of a run; finished rounds are told of by :func:`round_line`.

    Args:
        before: The state at the last look.
        after: The state now.
        clients: What devices said when they joined.
    """
    if before == after:
        return []
    return [*_of_members(before, after, clients), *_of_rounds(before, after), *_of_the_end(before, after)]


def _of_members(before: RunState, after: RunState, clients: Mapping[str, ClientRecord]) -> Iterator[Line]:
    count = len(before.clients)
    for name in sorted(set(after.clients) - set(before.clients)):
        count += 1
        said = clients.get(name)
        what = f" with {said.num_examples} samples and {said.engine}" if said else ""
        text = f"{name} has joined{what}: {count} of {after.num_clients} devices"
        yield Line("join", text, fields={"client_id": name, "joined": count, "wanted": after.num_clients})
    for name in sorted(set(after.revoked) - set(before.revoked)):
        yield Line("revoke", f"{name} is revoked", logging.WARNING, {"client_id": name})
    gone = set(before.clients) | set(before.revoked)
    for _ in gone - set(after.clients) - set(after.revoked):
        # Its name is what was to be forgotten.
        yield Line("forget", "a device is forgotten, and what it sent is erased")
    was, now = dict(before.quarantined), dict(after.quarantined)
    for name in sorted(now.keys() - was.keys()):
        text = f"{name} is quarantined: {now[name]}"
        yield Line("quarantine", text, logging.WARNING, {"client_id": name, "reason": now[name]})
    for name in sorted((was.keys() - now.keys()) & set(after.clients)):
        yield Line("release", f"{name} is released from quarantine", fields={"client_id": name})


def _of_rounds(before: RunState, after: RunState) -> Iterator[Line]:
    if before.phase is Phase.JOINING and after.phase is not Phase.JOINING and after.clients:
        text = f"the run begins: {len(after.clients)} devices, {after.rounds} rounds"
        yield Line("begin", text, fields={"devices": len(after.clients), "rounds": after.rounds})
    if after.overdue and not before.overdue:
        late = [each for each in after.selected if each in after.clients and each not in after.reported]
        yield _late(after, late)
    # Not by their words, which change where a device is forgotten.
    known = {(entry.at, entry.kind) for entry in before.history}
    for entry in after.history:
        if (entry.at, entry.kind) not in known and entry.kind in _TOLD:
            level = logging.WARNING if entry.kind == DAMAGED else logging.INFO
            fields = {"kind": entry.kind, "round_num": entry.round_num}
            yield Line("history", f"{_KINDS[entry.kind]}{entry.text}", level, fields)


_KINDS = {
    CHANGED: "from here on: ",
    DAMAGED: "damaged: ",
    OPERATOR: "the run is ",
    RESUMED: "the run goes on, ",
}


def _late(state: RunState, late: list[str]) -> Line:
    where = f"round {rounds_of(state).shown_round(state)}"
    if state.phase is Phase.JOINING:
        text = f"the deadline has passed: {len(state.clients)} of {state.num_clients} devices have joined"
        return Line("late", f"{text}, {state.min_clients} are needed", logging.WARNING)
    who = f": {listed(late)}" if late else ""
    many = "1 device is late" if len(late) == 1 else f"{len(late)} devices are late"
    text = f"{where}: the deadline has passed, {many}{who}"
    return Line("late", text, logging.WARNING, {"round_num": state.round_num, "late": late})


def _of_the_end(before: RunState, after: RunState) -> Iterator[Line]:
    if after.phase is before.phase:
        return
    if after.phase is Phase.FAILED:
        yield Line("failed", f"the run failed: {after.error}", logging.ERROR, {"error": after.error})
    elif after.phase is Phase.FINISHED:
        text = "the run is finished: devices take the model, and the server may be stopped then"
        yield Line("finished", text)
    elif before.phase in (Phase.FAILED, Phase.FINISHED):
        yield Line("goes-on", f"the run goes on in round {after.round_num} of {after.rounds}")


def round_line(
    metrics: RoundMetrics, state: RunState, reported: list[str] | None, drawn: tuple[str, ...]
) -> Line:
    """A finished round, or step of a server without rounds, in one line.

    Args:
        metrics: Of the round.
        state: Of the run, afterwards.
        reported: Devices whose part was trained on; None where a step is not of a round.
        drawn: Devices that were awaited in the round; empty where nobody looked while it was open.
    """
    late = sorted(set(drawn) - set(reported or ()))
    fields: dict[str, Any] = {
        "round_num": metrics.round_num,
        "rounds": state.rounds,
        "validation_accuracy": metrics.validation_accuracy,
        "validation_loss": metrics.validation_loss,
        "num_examples": metrics.num_examples,
        "upload_bytes": metrics.upload_bytes,
        "download_bytes": metrics.download_bytes,
        "seconds": metrics.seconds,
        "edge_seconds": metrics.edge_seconds,
        "server_seconds": metrics.server_seconds,
        "server_samples_per_second": metrics.server_samples_per_second,
    }
    if reported is None:
        where, who = f"step {metrics.round_num}", f"{metrics.num_examples} samples"
    else:
        where = f"round {metrics.round_num}/{state.rounds}"
        who = "1 device" if len(reported) == 1 else f"{len(reported)} devices"
        who += f", late: {listed(late)}" if late else ""
        fields |= {"devices": reported, "late": late}
    text = (
        f"{where}: validation accuracy {metrics.validation_accuracy:.3f}, {who}, "
        f"{as_bytes(metrics.upload_bytes)} up, {as_bytes(metrics.download_bytes)} down, "
        f"{as_duration(metrics.seconds)} (devices {as_duration(metrics.edge_seconds)}, server "
        f"{as_duration(metrics.server_seconds)}, {metrics.server_samples_per_second:.0f} samples/s)"
    )
    return Line("round", text, fields=fields)
