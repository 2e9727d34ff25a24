"""Let devices join and ask what to do."""

from __future__ import annotations

import logging
import re

from flask import Blueprint, Response, request

from gkt_core.bundle.run_checks import check_classes
from gkt_core.bundle.tap import TapRequirement
from gkt_core.errors import ForbiddenError, MessageError
from gkt_core.wire.credentials import ENROLMENT, Enrolled, NewCredential, is_sha256, secret_sha256
from gkt_core.wire.paths import CLIENT, CREDENTIAL, RUN, TASK
from gkt_core.wire.protocol import MAX_MESSAGE_BYTES, JoinRequest, check_client_id, check_protocol_version
from server_app.store import ClientRecord, drop_blobs
from server_app.store.joining import Identity
from server_app.turns import Turn, has_turn
from server_app.web.access import caller, still_admitted
from server_app.web.asking import keep
from server_app.web.context import context, message_response, run_of, task_response
from server_app.web.receiving import receive_message
from server_app.web.validation import received

_logger = logging.getLogger("gkt.server")
_LONGEST_KEY = 128
# RFC 7240. Proxies wait for a minute as they come.
_WAIT = re.compile(r"(?:^|[,;\s])wait=([0-9]{1,3})(?:$|[,;\s])")
_LONGEST_KEPT_SECONDS = 55.0

blueprint = Blueprint("clients", __name__, url_prefix=RUN)


@blueprint.put(CLIENT)
def join(run_id: str, client_id: str) -> Response:
    """A device introduces itself; repeating it is harmless."""
    run = run_of(run_id)
    check_client_id(client_id)
    message = received(JoinRequest, receive_message(MAX_MESSAGE_BYTES))
    check_protocol_version(message.protocol_version)
    manifest, names = run.bundle.manifest, message.class_names
    # A device has looked before it asks; what it tells is held to, should the two see different bundles.
    told = TapRequirement(require_tap=message.require_tap or None, max_bits=message.max_bits or None)
    told.check(manifest, run.config.codec)
    check_classes(manifest, message.num_classes, f"the data of {client_id}", names)
    if not names:
        _logger.warning(
            "%s does not say what its classes are: whether class 0 is %s there too, nobody can tell",
            client_id,
            manifest.class_names[0] if manifest.class_names else "the others' class 0",
        )
    for name in ("client_key", "samples_sha256"):
        if (length := len(getattr(message, name))) > _LONGEST_KEY:
            raise MessageError(f"{name} has {length} characters, expected {_LONGEST_KEY} at most")
    if message.num_examples < 2 or message.num_validation_examples < 1:
        raise MessageError(
            f"{client_id} has {message.num_examples} training and {message.num_validation_examples} "
            "validation samples, expected at least 2 and 1"
        )
    context().quota.check_announced(client_id, message.num_examples, message.num_validation_examples)
    if not message.engine.isprintable():
        raise MessageError(f"the engine of {client_id} is {message.engine[:40]!r}, expected a printable name")
    still_admitted()
    with context().admission.storing(client_id):
        forgotten: list[str] = []
        state = run.store.join(
            ClientRecord(
                client_id, message.num_examples, message.num_validation_examples, message.engine[:40]
            ),
            Identity.of(client_id, message.client_key, names, message.samples_sha256),
            forgotten,
        )
        drop_blobs(run.blobs, forgotten)
    return task_response(run, state, client_id)


@blueprint.put(CREDENTIAL)
def credential(run_id: str, client_id: str) -> Response:
    """A device says what it is known by: with a join link at first, then with its secret; repeatable."""
    run = run_of(run_id)
    check_client_id(client_id)
    message = received(NewCredential, receive_message())
    if not is_sha256(message.secret_sha256):
        raise MessageError("secret_sha256 is no SHA-256, expected 64 hexadecimal digits")
    if (length := len(message.client_key)) > _LONGEST_KEY:
        raise MessageError(f"client_key has {length} characters, expected {_LONGEST_KEY} at most")
    asks = caller()
    if asks.kind == ENROLMENT:
        if client_id in run.store.state().revoked:
            raise ForbiddenError(f"{client_id} was revoked and cannot enrol again")
        key_sha256 = secret_sha256(message.client_key) if message.client_key else ""
        with context().admission.storing(client_id):
            forgotten = run.store.credentials.enrol(asks.bearer, client_id, message.secret_sha256, key_sha256)
            drop_blobs(run.blobs, forgotten)
    else:
        run.store.credentials.replace(client_id, asks.bearer.secret, message.secret_sha256)
    return message_response(Enrolled(client_id))


@blueprint.get(TASK)
def task(run_id: str, client_id: str) -> Response:
    """What the device does next; one that prefers to wait is answered when there is something to do."""
    run = run_of(run_id)
    state = run.store.state()
    response = task_response(run, state, client_id)
    preferred = _WAIT.search(request.headers.get("Prefer", ""))
    asks = caller()
    # One that is to draw another secret hears of it at once.
    if preferred and not asks.rotates and not has_turn(state, client_id):
        seconds = min(float(preferred[1]), _LONGEST_KEPT_SECONDS)
        turn = Turn(context().turns, client_id, seconds, state, asks.credential)
        keep(request.environ.get("gunicorn.socket"), turn)
    return response
