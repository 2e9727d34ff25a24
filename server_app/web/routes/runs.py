"""Say what a run is and how it is doing."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, abort, request

from gkt_core.errors import MessageError
from gkt_core.version import __version__
from gkt_core.wire.paths import AUTHORITY, HEALTH, LIVE, ROUNDS, RUN, RUNS, STATUS
from gkt_core.wire.protocol import PROTOCOL_VERSION, Health, RunInfo, RunList
from server_app.status import own_lines, round_page, run_status
from server_app.web.access import caller
from server_app.web.context import context, message_response, run_of
from server_app.web.operations import OPERATIONS, PEM

blueprint = Blueprint("runs", __name__)


@blueprint.get(HEALTH)
def health() -> Response:
    """Whether the run can go on; 503 with the reasons where it cannot."""
    if troubles := context().health.troubles():
        abort(503, "; ".join(troubles))
    return message_response(Health("ok"))


@blueprint.get(LIVE)
def live() -> Response:
    """Whether the server answers, and nothing else."""
    return message_response(Health("ok"))


@blueprint.get(AUTHORITY)
def authority() -> Response:
    """Who signed this server's certificate, if it made an authority of its own: compare it with a link."""
    certificate = context().authority
    if not certificate:
        abort(
            404,
            "this server has no authority of its own: its certificate is checked as usual, or it has none",
        )
    return Response(certificate, mimetype=PEM)


@blueprint.get(RUNS)
def list_runs() -> Response:
    """The runs of this server."""
    return message_response(RunList(PROTOCOL_VERSION, [context().run.store.run_id]))


@blueprint.get(RUN)
def info(run_id: str) -> Response:
    """What a device must know before it joins."""
    run = run_of(run_id)
    manifest = run.bundle.manifest.to_dict()
    return message_response(RunInfo(PROTOCOL_VERSION, run_id, run.told_config.told(), manifest, __version__))


@blueprint.get(RUN + STATUS)
def status(run_id: str) -> Response:
    """The run at a glance; of the devices, one that asks sees itself alone."""
    whole = run_status(run_of(run_id).store)
    client_id = caller().client_id
    return message_response(own_lines(whole, client_id) if client_id else whole)


@blueprint.get(RUN + ROUNDS)
def rounds(run_id: str) -> Response:
    """A page of the rounds that are finished, or of the steps of a server without rounds."""
    run = run_of(run_id)
    schemas = dict(OPERATIONS["runs.rounds"].queries)
    asked = {name: _number(name, schema) for name, schema in schemas.items()}
    return message_response(round_page(run.store, asked["after"], asked["limit"]))


def _number(name: str, schema: dict[str, Any]) -> int:
    given = request.args.get(name, str(schema["default"]))
    low, high = schema["minimum"], schema["maximum"]
    if not given.isascii() or not given.isdecimal() or len(given) > 9 or not low <= int(given) <= high:
        raise MessageError(f"{name} is {given[:20]!r}, expected a number from {low} to {high}")
    return int(given)
