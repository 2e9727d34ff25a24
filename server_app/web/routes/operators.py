"""Do what the person who runs the server may do from elsewhere: invite, list and change devices."""

from __future__ import annotations

import math

from flask import Blueprint, Response, abort

from gkt_core.errors import MessageError
from gkt_core.wire.credentials import ClientChange, EnrolmentRequest
from gkt_core.wire.paths import CLIENT_ACTION, CLIENTS, ENROLMENTS, RUN
from gkt_core.wire.protocol import check_client_id
from server_app.members import membership
from server_app.operating import FORGET, forget_client
from server_app.web.context import context, message_response, run_of
from server_app.web.operations import ACTIONS
from server_app.web.receiving import receive_message
from server_app.web.validation import received

blueprint = Blueprint("operators", __name__, url_prefix=RUN)


@blueprint.post(ENROLMENTS)
def open_enrolments(run_id: str) -> Response:
    """Draw tokens that make join links, each for one device."""
    run = run_of(run_id)
    wanted = received(EnrolmentRequest, receive_message())
    if not math.isfinite(wanted.seconds):
        raise MessageError(f"seconds is {wanted.seconds}, expected a number")
    if wanted.client_id:
        check_client_id(wanted.client_id)
    return message_response(membership.open_enrolments(run, wanted, context().authority))


@blueprint.get(CLIENTS)
def list_clients(run_id: str) -> Response:
    """List all devices, those among them that have not joined yet, and what each of them does."""
    return message_response(membership.client_list(run_of(run_id).store))


@blueprint.post(CLIENT_ACTION)
def change(run_id: str, client_id: str, action: str) -> Response:
    """Revoke a device, end its quarantine (trust: for good), ask it for another secret, or forget it."""
    run = run_of(run_id)
    check_client_id(client_id)
    if action not in ACTIONS:
        abort(404, f"no action {action[:20]!r}, expected one of {', '.join(ACTIONS)}")
    if action == FORGET:
        # Seen by this server, perhaps a moment ago.
        forgotten = forget_client(run, client_id)
        context().sight.ledger.forget(client_id)
        context().renew()
        return message_response(forgotten)
    changed = ClientChange(client_id, membership.change_client(run, client_id, action))
    context().renew()
    return message_response(changed)
