"""``gkt clients``: the devices of a run, for the person who runs its server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gkt_core.cli import Group, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.errors import InputError, RoundError, needs
from server_app.cli.options import ReleaseOptions, RunFolder

if TYPE_CHECKING:
    from server_app.rounds.state import Event, RunState


@click.group(cls=Group)
def clients() -> None:
    """List a run's devices, revoke one, or release one from quarantine.

    Works beside a running server or without one: both read the run's state from --data-dir.
    """


@clients.command("list", example="gkt clients list --data-dir run")
@dataclass_options(RunFolder)
@json_option()
def list_clients(options: RunFolder, as_json: bool) -> None:
    """List the devices of a run and what each of them does.

    States: training (its part of the round is awaited), reported, waiting, quarantined (with the reason),
    revoked.
    """
    store, state = _open(options.data_dir)
    rows = _rows(store, state)
    if as_json:
        emit_json({"run_id": store.run_id, "phase": str(state.phase), "clients": rows})
        return
    click.echo(f"{store.run_id} is {state.phase} in round {state.round_num} of {state.rounds}")
    for row in rows:
        about = f"{row['num_examples']} samples, soft labels of round {row['last_answer']}"
        reason = f": {row['reason']}" if row["reason"] else ""
        click.echo(f"{row['client_id']}  {row['state']}  {about}{reason}")


@clients.command(example="gkt clients revoke client-003 --data-dir run")
@click.argument("client_id")
@dataclass_options(RunFolder)
@json_option()
def revoke(client_id: str, options: RunFolder, as_json: bool) -> None:
    """Exclude a device from the run for good.

    Nobody waits for it any more, and it cannot join this run again. What was trained on its features
    before stays in the network. For a device that only misbehaved once, see gkt clients release.
    """
    from server_app.rounds.state import Revoked  # noqa: PLC0415 - imports an extra

    _apply(options.data_dir, client_id, Revoked(client_id), "revoked", as_json)


@clients.command(example="gkt clients release client-003 --data-dir run")
@click.argument("client_id")
@dataclass_options(ReleaseOptions)
@json_option()
def release(client_id: str, options: ReleaseOptions, as_json: bool) -> None:
    """Let a quarantined device take part again, from the next round on.

    Its past is forgotten and its next upload is checked as if it were its first: a device that sends the
    same again is quarantined again, unless --trust says that you have looked at it.
    """
    from server_app.rounds.state import Pardoned  # noqa: PLC0415 - imports an extra

    _apply(options.data_dir, client_id, Pardoned(client_id, options.trust), "released", as_json)


def _open(data_dir: Path) -> tuple[Any, RunState]:
    with needs("server"):
        from server_app.run_folder import open_run  # noqa: PLC0415 - imports an extra
    store = open_run(data_dir).store
    return store, store.state()


def _rows(store: Any, state: RunState) -> list[dict[str, Any]]:
    from server_app.rounds.machine import rounds_of  # noqa: PLC0415 - imports an extra

    reasons = dict(state.quarantined)

    def describe(client_id: str) -> str:
        if client_id in state.revoked:
            return "revoked"
        if client_id in reasons:
            return "quarantined"
        if rounds_of(state).is_working(state, client_id):
            return "training"
        return "reported" if client_id in state.reported else "waiting"

    return [
        {
            "client_id": client.client_id,
            "state": describe(client.client_id),
            "reason": reasons.get(client.client_id, ""),
            "trusted": client.client_id in state.trusted,
            "num_examples": client.num_examples,
            "engine": client.engine,
            "last_answer": state.last_answer(client.client_id),
        }
        for client in store.clients().values()
    ]


def _apply(data_dir: Path, client_id: str, event: Event, done: str, as_json: bool) -> None:
    store, _ = _open(data_dir)
    known = store.clients()
    if client_id not in known:
        listed = ", ".join(known) or "nobody has joined yet"
        raise InputError(f"no device {client_id!r} in this run, expected one of: {listed}")
    try:
        state = store.apply(event)
    except RoundError as error:
        # Here it is not a peer that misunderstood something, but what a person asked for.
        raise InputError(str(error)) from error
    row = next(row for row in _rows(store, state) if row["client_id"] == client_id)
    if as_json:
        emit_json(row)
    else:
        click.echo(f"{client_id} is {done}: {json.dumps(row, sort_keys=True)}")
