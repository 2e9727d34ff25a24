"""``gkt runs``: what the person who runs a server does to the run as a whole."""

from __future__ import annotations

import dataclasses

import click

from gkt_core.cli import Group, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from server_app.cli.operating import operated
from server_app.cli.options import HaltOptions, OperatorOptions

_SAID = {
    "pause": "paused: devices wait, the trainer ends the round that it trains, and no deadline runs",
    "stop": "stopped: devices end, and what they have begun stays in their folders",
    "resume": "resumed: it goes on where it was; devices that had ended are started again as before",
}


@click.group(cls=Group)
def runs() -> None:
    """Pause, stop or resume a run.

    Works beside a running server or without one, and holds when the server is started again. From another
    machine give --server, with a copy of the operator's secret.
    """


@runs.command(example="gkt runs pause --data-dir run --reason moving")
@dataclass_options(HaltOptions)
@json_option()
def pause(options: HaltOptions, as_json: bool) -> None:
    """Let devices wait, and the trainer once its round is trained; nothing is lost.

    Devices are told the reason. What they are sending is still taken; deadlines do not run.
    """
    _change(options, "pause", options.reason, as_json)


@runs.command(example="gkt runs stop --data-dir run --reason ended")
@dataclass_options(HaltOptions)
@json_option()
def stop(options: HaltOptions, as_json: bool) -> None:
    """End a run for now: devices are told the reason and end (exit code 7), and no other may join.

    A round that is being trained is trained to its end; a run that is finished by that stays finished.
    gkt runs resume takes it up where it was.
    """
    _change(options, "stop", options.reason, as_json)


@runs.command(example="gkt runs resume --data-dir run")
@dataclass_options(OperatorOptions)
@json_option()
def resume(options: OperatorOptions, as_json: bool) -> None:
    """Let a run go on that was paused or stopped.

    One that has failed goes on with gkt serve --resume-failed.
    """
    _change(options, "resume", "", as_json)


def _change(options: OperatorOptions, action: str, reason: str, as_json: bool) -> None:
    with operated(options) as run:
        changed = run.change_run(action, reason)
    if as_json:
        emit_json(dataclasses.asdict(changed))
    else:
        click.echo(f"{changed.run_id}, {changed.phase} in round {changed.round_num}, is {_SAID[action]}")
