"""``gkt status``: a run at a glance, and the one next step that helps."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import click

from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.printable import printable
from server_app.cli.operating import OperatedRun, operated
from server_app.cli.options import StatusOptions
from server_app.overview.amounts import as_bytes, as_duration
from server_app.overview.judging import exit_code, next_step, waiting_for
from server_app.overview.messages import DeviceLine, Overview

_ENDED = ("finished", "failed")
_HOME = "\x1b[H\x1b[2J"


@click.command(cls=Command, example="gkt status --data-dir run")
@dataclass_options(StatusOptions)
@json_option("everything as JSON, with --watch a line each time,")
@click.pass_context
def status(ctx: click.Context, options: StatusOptions, as_json: bool) -> None:
    """See a run at a glance: what it waits for, what is wrong, what to do next.

    Phase and round, accuracy, devices with when they were last heard of, trainer, disk, and how long the run
    will take; the last line is the one step that helps now. Ends with 0 where nobody needs to look, 7 where
    the run has failed or its trainer died or hangs, 4 where what is stored is damaged, 8 where the disk is
    full or nearly so, and 9 where somebody should look: a quarantined device, one that is late, nobody who
    comes, no server.
    """
    with operated(options) as run:
        if options.watch:
            document = _watched(run, options.every, as_json)
        else:
            document = run.overview()
            if as_json:
                emit_json(_values(document))
            else:
                click.echo("\n".join(map(printable, status_lines(document))))
    ctx.exit(exit_code(document.findings))


def _watched(run: OperatedRun, seconds: float, as_json: bool) -> Overview:
    """Show it again and again, on a terminal in place, elsewhere when its lines have changed."""
    shown: list[str] = []
    while True:
        document = run.overview()
        if as_json:
            click.echo(json.dumps(_values(document), allow_nan=False))
        else:
            lines = [printable(line) for line in status_lines(document)]
            if sys.stdout.isatty():
                click.echo(_HOME + "\n".join(lines))
            elif lines != shown:
                click.echo("\n".join(lines) + "\n")
            shown = lines
        if document.phase in _ENDED:
            return document
        time.sleep(seconds)


def _values(document: Overview) -> dict[str, object]:
    return {**dataclasses.asdict(document), "next_step": next_step(document)}


def status_lines(document: Overview) -> list[str]:
    """A run at a glance, in lines."""
    return [*_head(document), "", *_devices(document), "", *_machine(document), *_findings(document)]


def _head(document: Overview) -> Iterator[str]:
    halt = f", {document.halt}" if document.halt else ""
    where = f"round {document.round_num} of {document.rounds}" if document.round_num else "not begun"
    yield f"{document.run_id}: {document.phase}{halt}, {where}"
    yield f"now          {waiting_for(document)}"
    if document.phase in ("joining", "collecting") and document.deadline_seconds and not document.halt:
        left = document.deadline_seconds - document.waits_seconds
        enough = f"{document.min_clients} of {document.num_clients} devices are enough"
        when = "has passed" if document.overdue or left <= 0 else f"in about {as_duration(left)}"
        yield f"deadline     {when}, then {enough}"
    if document.finished_rounds:
        last = document.finished_rounds[-1]
        name = "step" if document.mode == "async" else "round"
        yield (
            f"last {name:8s}{last.round_num}: validation accuracy {last.validation_accuracy:.3f}, "
            f"{as_bytes(last.upload_bytes)} up, {as_duration(last.seconds)} (devices "
            f"{as_duration(last.edge_seconds)}, server {as_duration(last.server_seconds)})"
        )
    if document.seconds_left > 0:
        end = datetime.fromtimestamp(document.at) + timedelta(seconds=document.seconds_left)
        yield f"time left    about {as_duration(document.seconds_left)}, until {end:%Y-%m-%d %H:%M}"
    if document.traffic:
        sent = sum(num for kind, num in document.traffic.items() if kind.startswith("upload/"))
        taken = sum(num for kind, num in document.traffic.items() if kind.startswith("download/"))
        yield f"bytes        {as_bytes(sent)} from devices, {as_bytes(taken)} to them"


def _devices(document: Overview) -> Iterator[str]:
    yield f"devices      {document.num_joined} of {document.num_clients} have joined"
    width = max((len(device.client_id) for device in document.devices), default=0)
    for device in document.devices:
        parts = [f"{device.client_id:{width}s}  {device.state:11s}  {_seen(device)}"]
        if device.num_examples:
            parts.append(f"{device.num_examples} samples")
        if device.upload_bytes:
            parts.append(f"{as_bytes(device.upload_bytes)} sent")
        if device.accuracy >= 0:
            parts.append(f"own accuracy {device.accuracy:.3f} in round {device.last_round}")
        yield f"  {', '.join(parts)}" + (f": {device.reason}" if device.reason else "")


def _seen(device: DeviceLine) -> str:
    return f"seen {as_duration(device.seen_seconds)} ago" if device.seen_seconds >= 0 else "not seen yet"


def device_lines(device: DeviceLine) -> list[str]:
    """One device, in lines."""
    joined = f"{device.num_examples} training and {device.num_validation_examples} validation samples"
    reported = f"round {device.last_round}, own accuracy {device.accuracy:.3f}"
    return [
        f"{device.client_id} is {device.state}" + (f": {device.reason}" if device.reason else ""),
        f"  {_seen(device)}; {as_bytes(device.upload_bytes)} sent, {as_bytes(device.download_bytes)} taken",
        f"  {joined}, on {device.engine}" if device.num_examples else "  has not joined yet",
        f"  last reported {reported}, {device.images_per_second:.0f} images/s"
        if device.accuracy >= 0
        else "  has not reported yet",
        f"  soft labels of round {device.last_answer}" if device.last_answer else "  no soft labels yet",
        *(["  its uploads are not checked any more"] if device.is_trusted else []),
        *([f"  its last request was refused: {device.refused}"] if device.refused else []),
    ]


def _machine(document: Overview) -> Iterator[str]:
    trainer, disk = document.trainer, document.disk
    server = document.url if document.is_served else "none is up"
    yield f"server       {server}"
    if document.phase == "finished":
        yield "trainer      has done its work"
    elif trainer.silent_seconds >= 0:
        doing = trainer.what or "nothing"
        if trainer.progress is not None:
            doing += f", loss {trainer.progress.loss:.3f}"
        yield f"trainer      {doing}; last sign of life {as_duration(trainer.silent_seconds)} ago"
    else:
        yield "trainer      has given no sign of life yet"
    yield (
        f"disk         {as_bytes(disk.free_bytes)} free of {as_bytes(disk.total_bytes)}, uploads wait below "
        f"{as_bytes(disk.reserve_bytes)}"
    )


def _findings(document: Overview) -> Iterator[str]:
    if document.findings:
        yield ""
    for finding in document.findings:
        yield f"{finding.severity:7s}      {finding.text}"
    yield ""
    yield f"next         {next_step(document)}"
