"""``gkt clients``: the devices of a run, for the person who runs its server."""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import click

from gkt_core.cli import Group, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.errors import ConfigError, InputError
from gkt_core.printable import printable
from gkt_core.wire.credentials import ClientChange
from server_app.cli.operating import OperatedRun, operated
from server_app.cli.options import OperatorOptions, ReenrolOptions, ReleaseOptions
from server_app.cli.status import device_lines

# Between two questions whether a round is over that holds what is to be erased.
_FORGET_SECONDS = 1.0


@click.group(cls=Group)
def clients() -> None:
    """List a run's devices; show, revoke, release, forget, rotate or enrol one again.

    Works beside a running server or without one: both read the run's state from --data-dir. From another
    machine give --server, with a copy of the operator's secret.
    """


@clients.command("list", example="gkt clients list --data-dir run")
@dataclass_options(OperatorOptions)
@json_option()
def list_clients(options: OperatorOptions, as_json: bool) -> None:
    """List the devices of a run and what each of them does.

    States: enrolled (has not joined yet), training (its part of the round is awaited), reported, waiting,
    quarantined (with the reason), revoked.
    """
    with operated(options) as run:
        listed = run.clients()
    if as_json:
        rows = [dataclasses.asdict(row) for row in listed.clients]
        emit_json({"run_id": listed.run_id, "phase": listed.phase, "clients": rows})
        return
    click.echo(f"{listed.run_id} is {listed.phase} in round {listed.round_num} of {listed.rounds}")
    for row in listed.clients:
        about = f"{row.num_examples} samples, soft labels of round {row.last_answer}"
        # What stands in it may come from a device, and from another machine.
        reason = f": {printable(row.reason)}" if row.reason else ""
        click.echo(f"{printable(row.client_id)}  {printable(row.state)}  {about}{reason}")


@clients.command(example="gkt clients revoke client-003 --data-dir run")
@click.argument("client_id")
@dataclass_options(OperatorOptions)
@json_option()
def revoke(client_id: str, options: OperatorOptions, as_json: bool) -> None:
    """Exclude a device from the run for good.

    Its secret ends at once, also in the middle of an upload. Nobody waits for it any more, and it cannot
    join this run again. What was trained on its features before stays in the network. For a device that
    only misbehaved once, see gkt clients release.
    """
    _change(options, client_id, "revoke", "revoked", as_json)


@clients.command(example="gkt clients release client-003 --data-dir run")
@click.argument("client_id")
@dataclass_options(ReleaseOptions)
@json_option()
def release(client_id: str, options: ReleaseOptions, as_json: bool) -> None:
    """Let a quarantined device take part again, from the next round on.

    Its past is forgotten and its next upload is checked as if it were its first: a device that sends the
    same again is quarantined again, unless --trust says that you have looked at it.
    """
    _change(options, client_id, "trust" if options.trust else "release", "released", as_json)


@clients.command(example="gkt clients rotate client-003 --data-dir run")
@click.argument("client_id")
@dataclass_options(OperatorOptions)
@json_option()
def rotate(client_id: str, options: OperatorOptions, as_json: bool) -> None:
    """Let a device draw another secret, with its next request.

    Until then the one that it has holds. Where somebody else may know that one, gkt clients re-enroll ends
    it.
    """
    _change(options, client_id, "rotate", "asked for another secret", as_json)


@clients.command("re-enroll", example="gkt clients re-enroll client-003 --data-dir run")
@click.argument("client_id")
@dataclass_options(ReenrolOptions)
@json_option()
def re_enroll(client_id: str, options: ReenrolOptions, as_json: bool) -> None:
    """Make a link for a device that has lost its state folder, or whose secret somebody else may know.

    What it was known by ends at once. With the link it takes up its place again, from fresh weights where
    they are lost; what it had sent of a round that is open is forgotten.
    """
    with operated(options) as run:
        link = run.link_for(client_id, options)
    if as_json:
        emit_json({"client_id": client_id, "join": link.text()})
        return
    click.echo(link.text())
    click.echo(f"on the device: gkt edge run --join FILE --client-id {client_id} --data ...", err=True)


@clients.command(example="gkt clients show client-003 --data-dir run")
@click.argument("client_id")
@dataclass_options(OperatorOptions)
@json_option()
def show(client_id: str, options: OperatorOptions, as_json: bool) -> None:
    """Show one device: what it does, when it was last heard of, what it has sent, what is wrong with it."""
    with operated(options) as run:
        document = run.overview()
    lines = {device.client_id: device for device in document.devices}
    if client_id not in lines:
        listed = ", ".join(sorted(lines)) or "nobody has joined yet"
        raise InputError(f"no device {client_id!r} in this run, expected one of: {listed}")
    findings = [finding for finding in document.findings if finding.client_id == client_id]
    if as_json:
        emit_json(
            dataclasses.asdict(lines[client_id]) | {"findings": list(map(dataclasses.asdict, findings))}
        )
        return
    for line in device_lines(lines[client_id]):
        click.echo(printable(line))
    for finding in findings:
        click.echo(printable(f"{finding.severity}: {finding.text}: {finding.remedy}".removesuffix(": ")))


@clients.command(example="gkt clients forget client-003 --data-dir run --yes")
@click.argument("client_id")
@dataclass_options(OperatorOptions)
@click.option(
    "--yes", "is_sure", is_flag=True, help="Do not ask; without a terminal nothing is done without."
)
@json_option()
def forget(client_id: str, options: OperatorOptions, is_sure: bool, as_json: bool) -> None:
    """Erase all that a device ever sent, and its name; for good.

    It is revoked first. Its shards with features, logits and labels, soft labels for it, reports, what is
    known of it and its name and address in logs are erased, and it says which of the trained networks may
    still hold what was learned from its samples. While these are being trained on, it waits for the end of
    that.
    """
    with operated(options) as run:
        known = sorted(row.client_id for row in run.clients().clients)
        if client_id not in known:
            listed = ", ".join(known) or "nobody has joined yet"
            raise InputError(f"no device {client_id!r} in this run, expected one of: {listed}")
        question = f"erase all that {client_id} ever sent, for good?"
        if not is_sure and not (sys.stdin.isatty() and click.confirm(question, err=True)):
            raise ConfigError(f"nothing was erased: give --yes to forget {client_id}")
        done = _forgotten(run, client_id)
    if as_json:
        emit_json(dataclasses.asdict(done))
        return
    click.echo(f"{client_id} is forgotten")
    for note in done.notes:
        click.echo(f"  {printable(note)}")


def _forgotten(run: OperatedRun, client_id: str) -> ClientChange:
    """Forget a device as soon as nobody trains on what it sent."""
    has_said = False
    while True:
        try:
            return run.forget(client_id)
        except InputError as error:
            rows = {row.client_id for row in run.clients().clients}
            if client_id not in rows or run.overview().phase != "training":
                raise
            if not has_said:
                has_said = True
                click.echo(f"{printable(str(error))}; waiting for that", err=True)
        time.sleep(_FORGET_SECONDS)


def _change(options: OperatorOptions, client_id: str, action: str, done: str, as_json: bool) -> None:
    with operated(options) as run:
        run.change(client_id, action)
        row = next(row for row in run.clients().clients if row.client_id == client_id)
    if as_json:
        emit_json(dataclasses.asdict(row))
    else:
        click.echo(f"{client_id} is {done}: {json.dumps(dataclasses.asdict(row), sort_keys=True)}")
