"""``gkt clients``: the devices of a run, for the person who runs its server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gkt_core.cli import Group, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.errors import needs
from server_app.cli.enroll import make_links
from server_app.cli.options import LinkOptions, ReleaseOptions, RunFolder

if TYPE_CHECKING:
    from server_app.rounds.state import RunState
    from server_app.run_folder import RunContext
    from server_app.store import RunStore


@click.group(cls=Group)
def clients() -> None:
    """List a run's devices; revoke, release, rotate or enrol one again.

    Works beside a running server or without one: both read the run's state from --data-dir.
    """


@clients.command("list", example="gkt clients list --data-dir run")
@dataclass_options(RunFolder)
@json_option()
def list_clients(options: RunFolder, as_json: bool) -> None:
    """List the devices of a run and what each of them does.

    States: enrolled (has not joined yet), training (its part of the round is awaited), reported, waiting,
    quarantined (with the reason), revoked.
    """
    with _opened(options.data_dir) as run:
        state = run.store.state()
        rows = _rows(run.store, state)
        run_id = run.store.run_id
    if as_json:
        emit_json({"run_id": run_id, "phase": str(state.phase), "clients": rows})
        return
    click.echo(f"{run_id} is {state.phase} in round {state.round_num} of {state.rounds}")
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

    Its secret ends at once, also in the middle of an upload. Nobody waits for it any more, and it cannot
    join this run again. What was trained on its features before stays in the network. For a device that
    only misbehaved once, see gkt clients release.
    """
    _change(options.data_dir, client_id, "revoke", "revoked", as_json)


@clients.command(example="gkt clients release client-003 --data-dir run")
@click.argument("client_id")
@dataclass_options(ReleaseOptions)
@json_option()
def release(client_id: str, options: ReleaseOptions, as_json: bool) -> None:
    """Let a quarantined device take part again, from the next round on.

    Its past is forgotten and its next upload is checked as if it were its first: a device that sends the
    same again is quarantined again, unless --trust says that you have looked at it.
    """
    _change(options.data_dir, client_id, "trust" if options.trust else "release", "released", as_json)


@clients.command(example="gkt clients rotate client-003 --data-dir run")
@click.argument("client_id")
@dataclass_options(RunFolder)
@json_option()
def rotate(client_id: str, options: RunFolder, as_json: bool) -> None:
    """Let a device draw another secret, with its next request.

    Until then the one that it has holds. Where somebody else may know that one, gkt clients re-enroll ends
    it.
    """
    _change(options.data_dir, client_id, "rotate", "asked for another secret", as_json)


@clients.command("re-enroll", example="gkt clients re-enroll client-003 --data-dir run")
@click.argument("client_id")
@dataclass_options(LinkOptions)
@json_option()
def re_enroll(client_id: str, options: LinkOptions, as_json: bool) -> None:
    """Make a link for a device that has lost its state folder, or whose secret somebody else may know.

    What it was known by ends at once. With the link it takes up its place again, from fresh weights where
    they are lost; what it had sent of a round that is open is forgotten.
    """
    with _opened(options.data_dir) as run:
        (link,) = make_links(run, options, 1, client_id)
    if as_json:
        emit_json({"client_id": client_id, "join": link.text()})
        return
    click.echo(link.text())
    click.echo(f"on the device: gkt edge run --join FILE --client-id {client_id} --data ...", err=True)


@contextlib.contextmanager
def _opened(data_dir: Path) -> Iterator[RunContext]:
    with needs("server"):
        from server_app.run_folder import open_run  # noqa: PLC0415 - imports an extra
        from server_app.storage_errors import storage_named  # noqa: PLC0415 - imports an extra
    with storage_named():
        run = open_run(data_dir)
        with contextlib.closing(run.store):
            yield run


def _rows(store: RunStore, state: RunState) -> list[dict[str, Any]]:
    from server_app.membership import client_state  # noqa: PLC0415 - imports an extra

    reasons, known, enrolled = dict(state.quarantined), store.clients(), store.credentials.devices()

    def row(client_id: str) -> dict[str, Any]:
        client = known.get(client_id)
        return {
            "client_id": client_id,
            "state": client_state(store, state, client_id),
            "reason": reasons.get(client_id, ""),
            "trusted": client_id in state.trusted,
            "num_examples": client.num_examples if client else 0,
            "engine": client.engine if client else "",
            "last_answer": state.last_answer(client_id),
        }

    return [row(client_id) for client_id in sorted({*known, *enrolled})]


def _change(data_dir: Path, client_id: str, action: str, done: str, as_json: bool) -> None:
    with needs("server"):
        from server_app.membership import change_client  # noqa: PLC0415 - imports an extra
    with _opened(data_dir) as run:
        change_client(run, client_id, action)
        row = next(row for row in _rows(run.store, run.store.state()) if row["client_id"] == client_id)
    if as_json:
        emit_json(row)
    else:
        click.echo(f"{client_id} is {done}: {json.dumps(row, sort_keys=True)}")
